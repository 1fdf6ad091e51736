"""What a virtual world is made of, as values: devices, models, script, retraining, faults; and the
`Behaviour` port, behind which a model stands.

Frozen and without results. Everything but the kernel may import it.
"""
