"""The Ray that a run uses: how it is reached, and what it can give."""
