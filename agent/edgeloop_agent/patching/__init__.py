"""The process that applies patches: numpy, zstandard and hdiffpatch are imported here only."""
