"""One dataset in, one dataset out: cutting, resuming and merging."""
