"""A recipe drafted for a table of one's own from its header alone: no row is read for it."""
