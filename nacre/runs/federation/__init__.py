"""A run whose parties are elsewhere: its server, and a party in its own house."""
