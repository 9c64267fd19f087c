"""Private statistics of a table: queries, answers, and what `nacre release` does."""
