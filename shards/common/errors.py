"""The root of every error that ends a command with one line, and the exit code of each.

    ColophonError                 1   shards/common/errors.py
    ├── UsageError                2   pipeline/errors.py       a recipe, an option or an input that is invalid
    ├── InputError                1   pipeline/errors.py       a partition that cannot be read; it is quarantined
    ├── StoreError                1   pipeline/errors.py       the output's disk or object store fails
    ├── StoppedError        130 ...   pipeline/errors.py       a training that a signal ended
    ├── AnnotatorError            2   annotators/base.py       a model or a setting of an annotator
    ├── ShardError                2   shards/common/errors.py  a shard or a manifest that cannot be read
    ├── TokenizerError            2   shards/tokenizer/special_tokens.py
    ├── TrainerError              2   trainer/errors.py        a setting, a shard or a checkpoint of a training
    ├── OutOfMemoryError          1   trainer/errors.py
    ├── DivergedError             1   trainer/errors.py
    └── NotWrittenError           1   trainer/errors.py        a checkpoint or metrics for which the disk has no room

Any other exception is a defect. A message is one line: what is wrong, where, and what to do.
"""

from __future__ import annotations

import signal
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of the `colophon` command."""

    COMPLETE = 0
    FAILED = 1
    USAGE = 2
    QUARANTINED = 3
    """Completed; some input was excluded: `quarantine.jsonl` lists it with the reasons."""
    INTERRUPTED = 128 + signal.SIGINT
    """130: interrupted from the keyboard. For this and the two below, a training has written a checkpoint."""
    USER_SIGNAL = 128 + signal.SIGUSR1
    """138 on Linux: SIGUSR1, which schedulers send before they take a machine away."""
    TERMINATED = 128 + signal.SIGTERM
    """143: SIGTERM."""


class ColophonError(Exception):
    """An error that ends a command with one line. An empty message prints nothing."""

    exit_code = ExitCode.FAILED


class ShardError(ColophonError, ValueError):
    """A shard or manifest that cannot be read, or shards that do not fit together."""

    exit_code = ExitCode.USAGE


def one_line(error: BaseException) -> str:
    """The first line of an error's message that is not blank; the name of its type where the message is empty."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
