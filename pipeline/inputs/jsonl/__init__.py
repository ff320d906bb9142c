"""JSON lines: reading a file, one line as a document, lines that the fast parser refuses, samples for planning."""
