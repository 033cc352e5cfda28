"""From counts to one bar; knows no engine."""
