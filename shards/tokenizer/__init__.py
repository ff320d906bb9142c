"""Tokenization: text to ids, once for all layouts."""
