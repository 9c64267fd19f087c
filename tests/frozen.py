"""Imported last by the server of `tests/forks.py`: the garbage collector of a forked process does
not look at what was imported, and so does not copy the memory that it shares with the server."""

import gc

gc.freeze()
