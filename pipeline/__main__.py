"""`python -m pipeline` is `colophon`: a Ray job's working directory has packages, not console scripts."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
