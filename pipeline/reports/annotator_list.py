"""`colophon annotators`: every annotator type, the columns that it reads and writes, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from colophon.annotators.base import AnnotatorConfig, AnnotatorError, explained
from colophon.annotators.registry import Offer, found
from colophon.pipeline.errors import printable
from colophon.pipeline.reports.tables import print_table


@dataclass(frozen=True, kw_only=True)
class ListedAnnotator:
    """An annotator type as a user sees it."""

    name: str
    source: str
    """`built in`, a package and its version, a file, or a module."""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    """With the default settings, under the type's own name; where settings are required, as the type describes it."""
    required: tuple[str, ...] = ()
    """The settings without a default."""
    error: str | None = None
    """Why it cannot be used."""

    def as_dict(self) -> dict[str, Any]:
        """The annotator as a JSON value."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def listed(offers: Sequence[Offer]) -> Iterator[ListedAnnotator]:
    """Each type once, by name; imports the packages that have some."""
    for offer in sorted(offers, key=lambda offer: (offer.name, offer.origin.description)):
        source = offer.origin.description
        try:
            config = found(offer.name, offers)
        except AnnotatorError as error:
            yield ListedAnnotator(name=offer.name, source=source, error=str(error))
        else:
            assert config is not None
            yield _with_columns(offer.name, config, source=source)


def _with_columns(name: str, config: type[AnnotatorConfig], *, source: str) -> ListedAnnotator:
    required = tuple(key for key, field in config.model_fields.items() if field.is_required())
    reads, writes, error = config.reads, config.writes, None
    if not required:
        try:
            settings = config()
            annotator = settings.build(name)
            reads, writes = annotator.columns, tuple(annotator.schema.names)
        except (ValidationError, AnnotatorError) as reason:
            error = " ".join(str(reason).split())
        except Exception as reason:  # of code that is not ours
            error = explained(reason, by=settings, name=name)
    return ListedAnnotator(name=name, source=source, reads=reads, writes=writes, required=required, error=error)


def print_annotators(annotators: Sequence[ListedAnnotator], *, console: Console) -> None:
    """Print a table, and a line for each annotator that cannot be used."""
    table = Table()
    for heading in ("type", "reads", "writes", "required settings", "from"):
        table.add_column(heading, overflow="fold")
    for a in annotators:
        cells = (a.name, ", ".join(a.reads), ", ".join(a.writes), ", ".join(a.required), a.source)
        table.add_row(*map(printable, cells))
    print_table(table, console=console)
    for annotator in (each for each in annotators if each.error is not None):
        console.print(printable(f"{annotator.name}: {annotator.error}"), highlight=False, soft_wrap=True, markup=False)
