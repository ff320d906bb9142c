"""Losses of documents under conditions, with bootstrap intervals."""
