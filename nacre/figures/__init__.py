"""How good a model is, in the usual figures: by name, with intervals, by class and by group."""
