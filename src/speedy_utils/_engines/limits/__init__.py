"""How often a task is tried, and for how long."""
