"""Columns of a table: how a file writes values, what is declared of them, what they become."""
