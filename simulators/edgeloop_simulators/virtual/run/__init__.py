"""A scenario played from its file to its verdict: what was seen, written down and read back, and
held against what was expected.

Reports, and those who start runs, may import it.
"""
