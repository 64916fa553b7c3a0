"""Several bundles beside each other."""
