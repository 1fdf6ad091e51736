"""The laws of docs/spec/invariants.md: what must hold on every device and in the controller, what
must be so in the end, where a breach is told, and what came of a world.

Looks at hosts and never steers them. The world and its parts, which call it, may import it; what is
above takes outcomes from it.
"""
