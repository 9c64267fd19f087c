"""Attacks on a finished model, and what they found, each with its interval."""
