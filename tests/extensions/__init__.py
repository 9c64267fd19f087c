"""One part of each kind as someone else would write it; `tests/test_extension_points.py` puts each
into a copy of the package and counts the files that it takes."""
