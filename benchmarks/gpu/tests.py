"""Part: the tests with the marker `cuda`, one record for each.

python -m benchmarks.gpu.tests --output FILE
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.gpu.arguments import part_parser
from benchmarks.gpu.records import Write, appender


class Recorder:
    """Appends a record for each test that was run or skipped."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Record the end of a test: of its call, or of a set-up that failed or skipped it."""
        if report.when != "call" and report.passed:
            return
        reason = "" if report.passed else str(report.longrepr).strip().splitlines()[-1][:300]
        self._write(test=report.nodeid, outcome=report.outcome, seconds=round(report.duration, 3), reason=reason)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests; return pytest's exit code."""
    options = part_parser(__doc__).parse_args(arguments)
    words = ["-m", "cuda", "tests/trainer/cuda", "-p", "no:cacheprovider", "-q"]
    return int(pytest.main(words, plugins=[Recorder(appender(options.output))]))


if __name__ == "__main__":
    sys.exit(main())
