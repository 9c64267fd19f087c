"""From a recipe to a plan: resolve, refuse, build, price, estimate. No row is read."""
