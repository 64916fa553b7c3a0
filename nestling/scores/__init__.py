"""Scores: pure numbers from logits and labels, and what they leave open."""
