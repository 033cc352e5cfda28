"""The Ray tasks of a run: who keeps their workers, what they count meanwhile, and what they send."""
