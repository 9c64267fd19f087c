"""Attacks on finished models: what an attacker sees, what counts as broken, and who survives."""
