"""What is known about a document: text and URL columns in, annotation columns out. One annotator a file."""
