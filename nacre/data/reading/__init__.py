"""How a file becomes columns, in blocks and without one Python object a cell."""
