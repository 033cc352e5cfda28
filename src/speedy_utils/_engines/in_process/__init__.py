"""Engines that need no other process: threads of this one, or its caller's alone."""
