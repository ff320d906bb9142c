"""Where tasks run: in this process, in local processes, or on Ray. One scheduler serves the latter two."""
