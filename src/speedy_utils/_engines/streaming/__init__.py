"""Items that are read while tasks run, and results that are handed out as they come."""
