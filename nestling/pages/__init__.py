"""Pages: what was measured, as HTML that asks nobody for anything, and as pictures."""
