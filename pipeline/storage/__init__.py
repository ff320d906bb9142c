"""A run's output directory: its files, the commit protocol, and the lock."""
