"""Bundles, .nest, as runners: a float network in LiteRT (floats.py), an int8 one by the reference (integers.py)."""
