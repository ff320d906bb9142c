"""The search for input files, local or remote, by one rule."""
