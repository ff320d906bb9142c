"""Attention of text tokens to the parts of their row, and comparison of documents by it."""
