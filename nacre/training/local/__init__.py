"""What a party does by itself between two rounds."""
