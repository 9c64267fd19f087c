"""What a finished model gives away about the rows it was trained on."""
