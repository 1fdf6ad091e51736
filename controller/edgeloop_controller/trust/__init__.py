"""Signed models: what the controller accepts of people, and what people make and sign (ADR 0031).

Invariants: used by the controller and by its CLI, and imports nothing of either; all modules but
`keys` (files, passphrases) and `fetching` (the API) are pure: bytes, metadata and `now` in, new
metadata out.
"""
