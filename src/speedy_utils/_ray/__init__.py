"""Everything that imports Ray; nothing else does."""
