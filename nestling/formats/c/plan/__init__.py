"""Where each tensor lies in the arena, and pictures of it."""
