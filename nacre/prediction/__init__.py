"""A finished model used: its signature, rows in, predictions out, in Python and by file."""
