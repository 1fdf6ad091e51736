"""Simulated adapters behind the ports; tests/contracts holds them to the real ones' contracts."""
