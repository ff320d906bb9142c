"""Annotators of documents: text and URL columns in, annotation columns out. One annotator a file."""
