"""The decoder, its attention and its loss."""
