"""What travels between Edgeloop's parts: topics, messages, the model manifest and the limits.

Invariants: importing this package, or any module of it but those that compute, imports no numpy, no
MQTT and no HTTP client, because the device's supervisor imports it.
"""
