"""What stands in a user's loop."""
