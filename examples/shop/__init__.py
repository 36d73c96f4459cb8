"""A small shop: everything that a project of your own consists of."""
