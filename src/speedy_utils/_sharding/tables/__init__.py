"""Tables of Arrow in memory."""
