"""Counts in the process that works, and the way out of it."""
