"""Capture: from torch's export of a network to a Graph; ATen's names are known here alone."""
