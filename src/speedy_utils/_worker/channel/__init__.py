"""The way from the reporters of a process to its run."""
