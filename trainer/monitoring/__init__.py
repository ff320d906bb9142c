"""Metrics of a run: the file, the console lines, the speed, and external trackers."""
