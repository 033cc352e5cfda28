"""Which lines a run shows: what they add up, which stages share one, and in which order they stand."""
