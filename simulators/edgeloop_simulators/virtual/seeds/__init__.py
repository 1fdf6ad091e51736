"""Worlds that are drawn from a seed, many at a time: those that break a law found, made small and
told; and bugs planted in real code, to prove that the laws bite.

Knows nothing of scenario files. Only `seeds_command` may import it.
"""
