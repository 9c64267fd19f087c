"""From an event to epsilon: bounds, compositions, and the price that is charged."""
