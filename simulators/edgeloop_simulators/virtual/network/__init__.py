"""What carries messages: links with latency, loss and partitions, the MQTT broker and its profiles,
and the `Broker` port at both ends.

Device, controller and what is above may import it; it knows neither of them, nor models.
"""
