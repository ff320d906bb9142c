"""Running it: recipe, inputs, storage, stages, executors, runs, reports and the command line."""
