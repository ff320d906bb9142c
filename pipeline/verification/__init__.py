"""`colophon verify`: a run's files, records, manifest and input, each held against the others."""
