"""Attacks as a queue runs them, each a model evaluation at a time; `listed.py` has all of them."""
