"""The real controller in virtual time: its services on a real database, killed and restarted; its
retraining; the operator; and its database read from beside it.

Knows nothing of devices. Laws, the world and its parts may import it.
"""
