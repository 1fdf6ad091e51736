"""World one: real agents and the real controller in virtual time, from one seed (ADR 0009)."""
