"""Columns: which types fit together, casts that lose nothing, and the rows that become Arrow files."""
