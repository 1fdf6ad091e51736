"""A training run: data out, the user's script, a candidate in, judged beside its parent."""
