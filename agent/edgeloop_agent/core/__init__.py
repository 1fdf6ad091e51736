"""What decides on the device: pure functions of events and `now`, giving frozen effects.

Invariants: no clock, no thread, no IO, no randomness of its own; ten thousand devices can share
one process.
"""
