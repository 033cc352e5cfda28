"""What travels to workers in other processes, beside the items."""
