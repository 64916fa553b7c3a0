"""Embedding: from images to embeddings by the quickest way here, kept in a cache; heads that are fitted to them."""
