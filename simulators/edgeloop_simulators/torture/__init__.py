"""Torture: a real agent on a real file system, killed and starved at every step of an update.

Two ways: a fault at every write, fsync and rename of an update (`syscalls`, by strace), and power
cuts at random points (`power`, by an ext4 image whose unsynced writes are lost). After each, what
the agent had promised must hold, old version or new one must be whole, and an agent that starts
there must bring the update to its end by itself (docs/adr/0014-torture.md).

A third looks at telemetry, end to end (`exactly_once`): agents, broker and controller killed while
it flows, none lost, none twice.
"""
