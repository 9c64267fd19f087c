"""A run's life on disk: begin, train, checkpoint, resume, settle, hand over."""
