"""The real agent in virtual time: a device's power, disk and process, and the simulated ends of the
agent's ports (runners, fetcher, outbox, artifacts).

Knows nothing of the controller. Laws, the world and its parts may import it.
"""
