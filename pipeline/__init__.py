"""Running it: recipe, inputs and partitions, the stages, executors, command line and report."""

__version__ = "0.1.0"
