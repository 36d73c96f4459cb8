"""How fast rewindow is beside others, on the same machine, Kafka and events: `scripts/bench`."""
