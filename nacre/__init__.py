"""Nacre: five techniques of private and robust training in one run, with the evidence.

Names load on first use (PEP 562), so `import nacre` costs nothing that is not asked for.
"""
