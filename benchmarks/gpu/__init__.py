"""Checks and measures the trainer on one GPU in nine minutes, in the order of worth."""
