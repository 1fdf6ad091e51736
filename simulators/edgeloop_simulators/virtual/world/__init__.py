"""The virtual world: hosts, network, models and laws put together, the script played, the faults
begun and ended.

Whoever plays worlds may import it: seeds, parts and runs.
"""
