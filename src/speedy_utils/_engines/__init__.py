"""What runs tasks, again if a worker is lost."""
