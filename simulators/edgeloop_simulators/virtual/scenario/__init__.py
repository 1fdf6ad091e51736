"""Scenario files of virtual worlds (docs/scenarios.md): the format, what one table says of another,
each problem by its line, and how a file becomes a world.

Plays nothing. Runs, and those who start them, may import it.
"""
