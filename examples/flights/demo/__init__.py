"""The demo: a year of flights through a real Kafka, and every number checked.

`python -m examples.flights.demo --help`, or `scripts/demo`, which also sets everything up.
"""
