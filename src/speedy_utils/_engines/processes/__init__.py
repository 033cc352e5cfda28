"""Processes of this machine, one attempt at a time in each."""
