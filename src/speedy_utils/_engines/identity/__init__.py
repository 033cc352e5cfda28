"""What a function is made of: whether it is the same as in an earlier run, and what differs if not."""
