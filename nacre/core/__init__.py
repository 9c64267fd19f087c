"""What every part of Nacre speaks: types, protocols, errors, random streams, files."""
