"""Definitions as data: model, loading, digest, plan."""
