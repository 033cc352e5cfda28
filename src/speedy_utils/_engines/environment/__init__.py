"""What the program has around it, for its tasks in other processes."""
