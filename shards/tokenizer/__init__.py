"""Text to ids, once for every layout."""
