"""Thin adapters for people with a loop of their own: plain PyTorch, and the Transformers Trainer.

Import `nacre.integrations.torch` or `nacre.integrations.transformers`; nothing is loaded here, so
neither costs what the other needs.
"""
