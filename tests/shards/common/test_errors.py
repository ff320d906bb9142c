"""The exception tree is as its drawing shows it, and `one_line` always gives a line."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import colophon
from colophon.pipeline.errors import StoppedError
from colophon.shards.common import errors
from colophon.shards.common.errors import ColophonError, did_you_mean, one_line, short_reason

ROOT = Path(colophon.__file__).parents[1]
DRAWN = re.compile(
    r"^    (?P<inside>│   )?(?P<branch>[├└]── )?(?P<name>\w+Error) +(?P<code>\d+(\+n)?) +(?P<file>\S+\.py)", re.M
)


def subclasses(root: type[ColophonError]) -> Iterator[type[ColophonError]]:
    yield root
    for child in root.__subclasses__():
        yield from subclasses(child)


def import_all_modules() -> None:
    for module in pkgutil.walk_packages(colophon.__path__, "colophon."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def test_the_drawing_shows_every_error_with_its_exit_code_and_file() -> None:
    import_all_modules()
    drawn = {found["name"]: found for found in DRAWN.finditer(errors.__doc__ or "")}
    ours = {error.__name__: error for error in subclasses(ColophonError) if error.__module__.startswith("colophon.")}
    assert set(drawn) == set(ours)
    for name, error in ours.items():
        code = "128+n" if error is StoppedError else str(int(error.exit_code))
        file = Path(inspect.getfile(error)).resolve().relative_to(ROOT.resolve()).as_posix()
        assert (drawn[name]["code"], drawn[name]["file"]) == (code, file), name
        assert bool(drawn[name]["branch"]) == (error is not ColophonError), name
        assert bool(drawn[name]["inside"]) == (not {ColophonError, Exception} & set(error.__bases__)), name


@pytest.mark.parametrize(("signal_name", "code"), [("SIGINT", 130), ("SIGUSR1", 138), ("SIGTERM", 143)])
def test_a_stopped_training_ends_with_128_and_the_signal(signal_name: str, code: int) -> None:
    assert StoppedError("stopped", signal_name=signal_name).exit_code == code


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError("\n  \n  second  \nthird"), "second"),
        (ValueError(""), "ValueError"),
        (ValueError(" \n "), "ValueError"),
        (ColophonError(), "ColophonError"),
        (KeyError("name"), "'name'"),
    ],
)
def test_one_line_of_a_message(error: Exception, line: str) -> None:
    assert one_line(error) == line


def test_a_short_reason_is_type_and_message_in_one_line() -> None:
    assert short_reason(ValueError("first\n  second")) == "ValueError: first second"
    assert short_reason(OSError("x" * 160)) == f"OSError: {'x' * 160}"
    assert short_reason(OSError("x" * 161)) == f"OSError: {'x' * 160}…"


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("qualty", ["topic", "quality"], ". Did you mean 'quality'?"),
        ("URL_host", ["url", "url_host"], ". Did you mean 'url_host'?"),
        ("zzz", ["topic", "quality"], ""),
        ("", ["topic"], ""),
        ("2m", ["124m"], ""),
        ("x", [], ""),
    ],
)
def test_the_likeliest_name_is_guessed(name: str, known: list[str], expected: str) -> None:
    assert did_you_mean(name, known) == expected
