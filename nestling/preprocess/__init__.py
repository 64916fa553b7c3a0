"""Preprocess: from a file to what the network takes; each has its twin in C (device/runtime)."""
