"""The whole numbers that a secure sum adds up."""
