"""The worker: Faust, Kafka transactions, and the partitions it owns."""
