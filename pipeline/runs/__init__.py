"""One run of a recipe, from the resolved recipe to the manifest, and the commands that read a run."""
