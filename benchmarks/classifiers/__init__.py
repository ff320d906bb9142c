"""The kinds of classifiers side by side: `python -m benchmarks.classifiers`."""
