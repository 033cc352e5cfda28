"""What calls are given: their items, options and the signature of the function."""
