"""The recipe: its sections, the loading of a file, and error messages."""
