"""The optimizers and the learning rate of each update."""
