"""One file a peer: a script that reads a job (`benchmarks.job`) and does it as the peer's own documentation says.

Every script runs in a process of its own, `python -m benchmarks.peers.NAME JOB.json`, and imports nothing of Colophon.
"""
