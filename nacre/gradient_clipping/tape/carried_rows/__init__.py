"""Rows that values of the batch move: their owners travel with the indices of each call."""
