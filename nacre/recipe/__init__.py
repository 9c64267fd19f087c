"""One recipe: the union of the techniques' own options, read from YAML or Python."""
