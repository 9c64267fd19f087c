"""Tags of what enters a step."""
