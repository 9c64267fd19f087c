"""The tape: one ordinary backward pass, from which the gradient of each unit is followed."""
