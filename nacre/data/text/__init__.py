"""Rows of text: documents, tokens, and secrets put in for audits."""
