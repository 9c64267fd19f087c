"""Many different Gaussian steps, composed by the characteristic functions of their losses."""
