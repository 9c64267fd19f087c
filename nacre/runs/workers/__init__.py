"""Processes that train parties side by side, over memory that they share."""
