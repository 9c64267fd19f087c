"""Adversaries of models that read tokens: moves of embeddings, other words, other prompts."""
