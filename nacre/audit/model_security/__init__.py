"""What inputs made by an attacker do to a finished model."""
