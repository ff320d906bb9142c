"""Estimates of a run's time, disk and memory, from earlier runs on this machine or a short probe."""
