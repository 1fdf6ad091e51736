"""Bytes of strangers into every decoder: `make fuzz` (atheris, which follows coverage)."""
