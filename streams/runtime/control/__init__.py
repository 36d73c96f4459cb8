"""The control path on Kafka: what `streams.control` decides is read, written and answered here.

`service` runs the coordinator, `routes` is what partition owners read, `acks` what they write.
"""
