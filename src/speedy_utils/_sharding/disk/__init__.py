"""What lies on disk beside the rows of a run: files of the user's own, and what the file system refuses."""
