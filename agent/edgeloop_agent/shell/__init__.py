"""The supervisor's shell: the loop, and the real adapters behind the ports.

Invariant: nothing here decides what happens to a version; the core does.
"""
