"""How a device gets its certificate and the next one: programs of their own, which end soon, since
they import `cryptography`, which the supervisor does not (ADR 0033)."""
