"""What the outermost steps of a run are taken with: its surroundings, and rows or parties."""
