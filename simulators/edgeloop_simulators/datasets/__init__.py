"""Real recordings, cut into windows and dealt out: some to train on, some to the devices."""
