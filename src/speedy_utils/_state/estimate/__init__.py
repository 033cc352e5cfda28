"""How fast counts move, and how long that takes to the end."""
