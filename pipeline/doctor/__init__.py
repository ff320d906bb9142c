"""`colophon doctor`: whether the installation works, and whether this machine fits a recipe."""
