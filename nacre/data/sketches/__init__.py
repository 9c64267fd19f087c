"""Sketches of private rows, by which the ledger knows the same data under another name."""
