"""One run: reads counts, makes snapshots, moves a display."""
