"""The Ray that a run uses: how it is reached, what it can give, and which of it is silent."""
