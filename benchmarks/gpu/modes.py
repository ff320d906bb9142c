"""Part: one training in several ways, beside each other: what is compiled, float8, the sequences at once.

    python -m benchmarks.gpu.modes --output FILE --name modes-124m

Each way is a process of its own, on the same batches and initial weights, with documents masked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.arguments import part_parser
from benchmarks.gpu.plan import MODES, Size, configurations
from benchmarks.gpu.records import Write, appender
from benchmarks.gpu.speed import measure

WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "modes-124m": {
        "layers compiled": {},
        "CUDA graphs": {"compile": "cuda_graphs"},
        "one graph": {"compile": "model"},
        "sequences at once searched": {"micro_batch_size": None},
    },
    "modes-1.5b": {
        "bfloat16": {},
        "float8": {"dtype": "float8"},
        "sequences at once searched": {"micro_batch_size": None},
    },
    "modes-1m": {
        "as in the job": {},
        "float8": {"dtype": "float8"},
        "sequences at once searched": {"micro_batch_size": None, "micro_batch_tokens": 128},
    },
}
"""Settings of a training by the name of the way, in the order of worth; the others are compared with the first."""


def contestants(name: str) -> dict[str, list[str]]:
    """Return the command of each way of a part."""
    return {way: ["benchmarks.trainer.ours", "documents", json.dumps(some)] for way, some in WAYS[name].items()}


def run(name: str, size: Size, *, write: Write) -> None:
    """Append one record for each way of a part."""
    one = next(one for one in configurations(size) if one.preset == MODES[name])
    measure(one, write=write, contestants=contestants(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 0."""
    parser = part_parser(__doc__)
    parser.add_argument("--name", required=True, choices=MODES, help="of the part")
    options = parser.parse_args(arguments)
    run(options.name, options.size, write=appender(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
