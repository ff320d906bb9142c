"""The recipe: its sections, how a file is loaded, and what errors name."""
