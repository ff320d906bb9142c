"""The parts that classifiers with heads share: the model file, the heads, the columns that they write."""
