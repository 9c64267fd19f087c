"""Statistics over several parties: whole numbers at each, their secure sum, and noise on it."""
