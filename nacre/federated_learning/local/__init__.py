"""What a party does to its local steps and to its change, and what it remembers between rounds."""
