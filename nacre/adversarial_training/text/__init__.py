"""Adversaries of models that read tokens: moves of embeddings, other words, suffixes of prompts."""
