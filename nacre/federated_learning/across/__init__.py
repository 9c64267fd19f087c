"""A federation whose parties are processes of other organisations: keys, signed conversation,
and the two ends of it. What carries the bytes is in `flower/`."""
