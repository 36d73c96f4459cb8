"""The data path, pure: events in, partials, closings, vectors out."""
