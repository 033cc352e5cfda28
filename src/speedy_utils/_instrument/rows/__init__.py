"""What a loop goes through: rows in batches, and past those that can't be read."""
