"""`python -m colophon` and `torchrun -m colophon` are the `colophon` command."""

from colophon.pipeline.cli import main

if __name__ == "__main__":
    main()
