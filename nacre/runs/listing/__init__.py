"""What was trained here: run folders found, judged and compared by their public files alone."""
