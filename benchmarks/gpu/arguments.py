"""The command line that all parts have."""

from __future__ import annotations

import argparse
from pathlib import Path


def part_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser of `--output` and `--size`."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--output", type=Path, required=True, help="result file, to which records are appended")
    parser.add_argument("--size", choices=["full", "tiny"], default="full", help="tiny: for tests on a CPU")
    return parser
