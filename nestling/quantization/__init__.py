"""Quantization: from a float Graph and images to integers, and what each layer loses by them."""
