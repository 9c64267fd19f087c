"""Private selection: the best of a random number of trials, and its price."""
