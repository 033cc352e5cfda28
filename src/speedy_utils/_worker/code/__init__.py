"""Where the user's code is: the lines that call this package, and the stack of a task."""
