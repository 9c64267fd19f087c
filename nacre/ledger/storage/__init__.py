"""Where entries are kept: SQLite or PostgreSQL, one writer at a time, commits that are shared."""
