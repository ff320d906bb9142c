"""A run's output directory: files, commits, the lock."""
