"""What parties at fault would have done to the federation of a run."""
