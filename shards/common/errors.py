"""The root of every error that ends a command with one line, and the exit code of each error.

    ColophonError         1      shards/common/errors.py
    ├── UsageError        2      pipeline/errors.py        a recipe, an option or an input that is invalid
    ├── InputError        1      pipeline/errors.py        a partition that cannot be read; it is quarantined
    │   └── TooLargeError     1  pipeline/inputs/limits.py  a document above max_document_bytes
    ├── NodeError         1      pipeline/errors.py        a machine lacks a model, a vocabulary or a module
    ├── StoreError        1      pipeline/errors.py        the output's disk or object store fails
    ├── LockedError       1      shards/common/file_locks.py  a lock that another process has held for too long
    ├── StoppedError      128+n  pipeline/errors.py        a training that signal n ended
    ├── AnnotatorError    2      annotators/base.py        a model or a setting of an annotator
    │   └── ModelCacheError   1  annotators/fasttext/model_cache.py  the next, for models
    ├── ServiceError      1      annotators/remote.py      a service that refuses requests, or gives no replies
    │   └── BudgetError   1      annotators/remote.py      a budget of requests or tokens is spent
    ├── CacheError        1      shards/common/cache_directory.py  a cache that cannot be written or is not private
    ├── StoreReadError    1      shards/stores/objects.py  an object store that fails while a run is read
    ├── ShardError        2      shards/common/errors.py   a shard or a manifest that cannot be read
    │   ├── DamagedFileError  2  shards/common/errors.py   a state file that is damaged, such as a calibration
    │   └── OutputPathError   2  shards/common/output_paths.py  a link or a pipe in an output
    ├── PanicError        1      shards/common/errors.py   a library in Rust that gave up
    ├── MissingLibraryError  2   shards/common/errors.py   a store whose library is not installed
    ├── TokenizerError    2      shards/common/errors.py   a vocabulary that cannot be read or used as asked
    ├── TrainerError      2      trainer/errors.py         a setting, a shard or a checkpoint of a training
    ├── OutOfMemoryError  1      trainer/errors.py         a model or a batch too large for the device
    ├── DivergedError     1      trainer/errors.py         a training whose numbers are no longer finite
    └── NotWrittenError   1      trainer/errors.py         a checkpoint or metrics for which the disk is too full

Any other exception that ends a command is a defect. `NoEngineError` (shards/tokenizer/engine_specs.py) never leaves
`shards/tokenizer/`, which then encodes with the reference library. A message is one line: what is wrong, where, and
what to do.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

from colophon.shards.common.url_secrets import without_secrets


class ExitCode(IntEnum):
    """The exit codes of the `colophon` command."""

    COMPLETE = 0
    FAILED = 1
    USAGE = 2
    QUARANTINED = 3
    """Completed; some input was excluded: `quarantine.jsonl` lists it with the reasons."""
    INTERRUPTED = 128 + signal.SIGINT
    """130: interrupted from the keyboard. For this and the next two codes, a training has written a checkpoint."""
    USER_SIGNAL = 128 + signal.SIGUSR1
    """138 on Linux: SIGUSR1, which schedulers send before they end a job."""
    TERMINATED = 128 + signal.SIGTERM
    """143: SIGTERM."""


class ColophonError(Exception):
    """An error that ends a command with one line; an empty message prints nothing. Secrets in URLs are masked in it."""

    exit_code = ExitCode.FAILED

    def __str__(self) -> str:
        """The message, as `without_secrets` masks it."""
        return without_secrets(super().__str__())


class ShardError(ColophonError, ValueError):
    """A shard or manifest that cannot be read, or shards that do not fit together."""

    exit_code = ExitCode.USAGE


class DamagedFileError(ShardError):
    """A file of a run's state that cannot be read; the message has its path and what to do."""


class TokenizerError(ColophonError, ValueError):
    """A vocabulary that cannot be read or used as asked, or a text that cannot be encoded."""

    exit_code = ExitCode.USAGE


class MissingLibraryError(ColophonError, ImportError):
    """A store whose library is not installed; the message has the command that installs it."""

    exit_code = ExitCode.USAGE


class PanicError(ColophonError, ValueError):
    """A library in Rust that gave up on its input; its own exception is no `Exception`, and would end anything."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turn panics of libraries in Rust (`tokenizers`, tiktoken, polars, orjson) into errors.

    Raises:
        PanicError: in place of a `PanicException`, which every such library has for itself.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise PanicError(f"a library failed: {one_line(error)}") from error


_LONGEST_REASON = 160
_SHORTEST_GUESSED = 2


def one_line(error: BaseException) -> str:
    """The first line of an error's message that is not blank, without secrets; else the name of the error's type."""
    lines = (line.strip() for line in without_secrets(str(error)).splitlines())
    return next(filter(None, lines), type(error).__name__)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error, with the known name most like `name`: `. Did you mean 'quality'?`; empty if none is."""
    from difflib import get_close_matches  # only errors need it

    lowered = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), lowered, n=1, cutoff=0.6) if len(name) > _SHORTEST_GUESSED else []
    return f". Did you mean {lowered[found[0]]!r}?" if found else ""


def missing_library(what: str, package: str, *, extra: str) -> str:
    """The error for a library of an extra that is not installed; `what` needs it."""
    return f"{what} needs the package {package}: pip install 'colophon[{extra}]'"


def listed(names: Sequence[str], *, most: int) -> str:
    """The first `most` names, for an error: `a, b, c and 2 more`."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def short_reason(error: BaseException) -> str:
    """The error's type and message, for an error of a library: `ValueError: Hash mismatch`.

    White space is joined, secrets are masked, and a message of more than 160 characters is cut.
    """
    text = " ".join(without_secrets(str(error)).split())
    return f"{type(error).__name__}: {text[:_LONGEST_REASON]}{'…' if len(text) > _LONGEST_REASON else ''}"


def with_place(error: BaseException, *, file: str | None = None) -> str:
    """`short_reason` and the file and line of the error's origin: `KeyError: 'x' (my_annotators.py:12)`.

    Args:
        error: the error that a function of an annotator raised.
        file: the path of the annotator's code: the innermost line in it is named. Without one, the innermost of all.
    """
    lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        lines.append((error.filename, error.lineno))
        error = SyntaxError(error.msg)  # its own message would repeat the line
    lines = [line for line in lines if line[0] == file] or lines
    place = f" ({Path(lines[-1][0]).name}:{lines[-1][1]})" if lines else ""
    return f"{short_reason(error)}{place}"
