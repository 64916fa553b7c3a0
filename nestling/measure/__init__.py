"""Measure: what bundles and files answer, how quick they are, what they weigh; each runs in a process of its own (apart)."""
