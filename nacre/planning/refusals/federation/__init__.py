"""What a plan refuses of federations."""
