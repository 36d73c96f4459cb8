"""Panes, accumulators and closing: pure window arithmetic."""
