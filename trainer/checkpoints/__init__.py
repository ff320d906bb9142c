"""The files of a training run: its directory, its checkpoints, and the check of tensors that are read."""
