"""Figures: matplotlib where it is installed, colours, labels, and writing to files. None of it needs a display."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colophon.shards.common.durable import replaced_file
from colophon.trainer.errors import TrainerError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which all kinds of colour vision distinguish; without yellow, which is faint on white."""
LINE_STYLES = ("-", "--", ":", "-.")
"""The next style is used after the last colour."""
SUFFIXES = (".png", ".svg")
_MAX_LABEL = 30
_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.parse_math": False,  # a dollar sign in a name is not mathematics
    "svg.fonttype": "none",  # labels remain text that can be searched and edited
    "svg.hashsalt": "colophon",  # the same figure gives the same file
}


def style_of(number: int) -> tuple[str, str]:
    """Colour and line style of a curve by its number, from 0."""
    return COLOURS[number % len(COLOURS)], LINE_STYLES[number // len(COLOURS) % len(LINE_STYLES)]


@contextmanager
def new_figure(*, width: float, height: float) -> Iterator[Figure]:
    """An empty figure of a size in inches, laid out so that nothing is cut off; the style applies inside the block.

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


def shortened_label(name: str) -> str:
    """A label of at most 30 printable characters; U+FFFD replaces the others."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in name)
    return shown if len(shown) <= _MAX_LABEL else shown[: _MAX_LABEL - 1] + "…"


def save_figure(figure: Figure, to: Path) -> list[Path]:
    """Write a figure as PNG or SVG by the suffix of `to`, as both without a suffix; returns the paths.

    Raises:
        TrainerError: the suffix is neither.
    """
    return [_save(figure, path) for path in figure_paths(to)]


def figure_paths(to: Path) -> list[Path]:
    """The paths that `save_figure` writes.

    Raises:
        TrainerError: the suffix is neither `.png` nor `.svg`.
    """
    if to.suffix in SUFFIXES:
        return [to]
    if to.suffix:
        raise TrainerError(f"{to}: figures are written as {' or '.join(SUFFIXES)}, or as both if a name has no suffix")
    return [to.with_name(to.name + suffix) for suffix in SUFFIXES]


def _save(figure: Figure, path: Path) -> Path:
    from matplotlib import rc_context

    form = path.suffix.removeprefix(".")
    metadata = {"Date": None} if form == "svg" else None
    with replaced_file(path) as temporary, rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a PNG shows a box for it
        figure.savefig(temporary, format=form, dpi=150, metadata=metadata)
    return path
