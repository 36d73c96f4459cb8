"""Avro schemas: registry, compatibility, codec."""
