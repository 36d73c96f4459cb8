"""Rows on disk and not yet on disk."""
