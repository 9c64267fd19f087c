"""How the processes and devices of a run share the work of a step."""
