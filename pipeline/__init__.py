"""Running it: recipe, inputs and partitions, the stages, executors, command line and report."""
