"""A snapshot as bars, widgets, log lines or a call."""
