"""The cost of annotating, tokenizing and packing a corpus of any size: what is measured, and what follows from it."""
