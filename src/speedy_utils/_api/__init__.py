"""What users call to run work."""
