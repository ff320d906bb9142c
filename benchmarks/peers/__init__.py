"""One script for each peer: it reads a job (`benchmarks.job`) and does it as the peer's own documentation recommends.

Every script runs in its own process, `python -m benchmarks.peers.NAME JOB.json`, and imports nothing of Colophon.
"""
