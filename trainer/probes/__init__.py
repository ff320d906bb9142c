"""Linear and MLP probes on the frozen states of a model."""
