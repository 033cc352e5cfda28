"""Pure: counts in, snapshot out; no thread, no I/O, no Ray, no tqdm."""
