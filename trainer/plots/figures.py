"""What figures share: matplotlib where it is installed, colours, names of files. Nothing here needs a display."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colophon.trainer.errors import TrainerError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which people with any colour vision tell apart; without yellow, which white swallows."""
LINE_STYLES = ("-", "--", ":", "-.")
"""After the last colour, the next style."""
SUFFIXES = (".png", ".svg")
_LABEL = 30
_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",  # labels stay text, to be searched and edited
    "svg.hashsalt": "colophon",  # the same figure gives the same file
}


def style_of(number: int) -> tuple[str, str]:
    """Colour and line style of the curve with this number, from 0."""
    return COLOURS[number % len(COLOURS)], LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)]


@contextmanager
def new_figure(*, width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many inches, laid out so that nothing is cut off; our style holds while it is drawn.

    Raises:
        TrainerError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise TrainerError("figures need matplotlib: install colophon[plot]") from None
    with rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def short(name: str) -> str:
    """A label that leaves room for others, in characters that a figure can show."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return shown if len(shown) <= _LABEL else shown[: _LABEL - 1] + "…"


def save_figure(figure: Figure, to: Path) -> list[Path]:
    """Write a figure as PNG or SVG by the suffix of `to`, as both without one; returns what was written.

    Raises:
        TrainerError: another suffix.
    """
    return [_save(figure, path) for path in figure_paths(to)]


def figure_paths(to: Path) -> list[Path]:
    """The files that a figure saved as `to` gives.

    Raises:
        TrainerError: its suffix is of no format that we write.
    """
    if to.suffix in SUFFIXES:
        return [to]
    if to.suffix:
        raise TrainerError(f"{to}: figures are written as {' or '.join(SUFFIXES)}, as both where a name has no suffix")
    return [to.with_name(to.name + suffix) for suffix in SUFFIXES]


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    from matplotlib import rc_context

    temporary = path.with_name(f".{path.name}")
    form = path.suffix.removeprefix(".")
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a PNG shows a box for it
        figure.savefig(temporary, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    temporary.replace(path)
    return path
