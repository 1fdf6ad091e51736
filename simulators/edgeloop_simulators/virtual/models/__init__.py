"""What devices see and what a version answers to it: recorded, made up, of a few numbers or a
function; and where later versions come from.

Each is a `spec.behaviour`. Devices meet them through that port alone; worlds, scenarios and seeds
choose among them.
"""
