"""What runs tasks, again where a worker is lost."""
