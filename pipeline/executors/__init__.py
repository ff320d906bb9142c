"""Where tasks run: this process, local processes, Ray."""
