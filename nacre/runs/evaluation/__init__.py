"""What a finished model releases of held-out rows, as part of its run."""
