"""Figures of training runs, and the common parts of all figures."""
