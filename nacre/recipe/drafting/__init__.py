"""A recipe drafted for a table or texts of one's own from a header alone: no row is read for it."""
