"""Technique 4: noise that hides a unit, what it costs, and private numbers about a table."""
