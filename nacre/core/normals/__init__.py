"""Exact normal noise in four layers: compiled, float64, intervals, and the rounding of a sum."""
