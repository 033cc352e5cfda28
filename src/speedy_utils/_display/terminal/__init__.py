"""A block of lines at the bottom of a terminal; it knows nothing of progress."""
