"""The columns that a recipe names, held against those of all files of a plan: a name that no file has is an error."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from colophon.pipeline.errors import UsageError
from colophon.pipeline.inputs.columns import SHOWN_COLUMNS, ColumnNeed
from colophon.pipeline.inputs.jsonl.sample import SAMPLED_FILES, sampled
from colophon.pipeline.inputs.search.found import InputFile
from colophon.pipeline.recipe.schema import InputSection
from colophon.shards.common.errors import did_you_mean
from colophon.shards.stores.retry import is_transient, retried

WARC_COLUMNS = ("text", "id", "url", "date")
"""The columns of a WARC record."""


class Mappings:
    """Collects the columns of files while they are planned, in threads."""

    def __init__(self, config: InputSection, files: Sequence[InputFile], needs: Sequence[ColumnNeed] = ()) -> None:
        """Look for the columns of `config` and of `needs` in `files`, in the first JSONL files by a sample."""
        self._columns = {f"{config.key}.columns.{name}": column for name, column in config.columns.items()}
        self._optional = [need for need in needs if config.name in need.optional_in]
        self._columns |= {need.key: need.in_input for need in needs if need.key and need not in self._optional}
        self._of_source = f" of {config.key}" if config.name is not None else ""
        self._text = config.columns.get("text", "text")
        self._sampled = {file.url for file in [f for f in files if f.format == "jsonl"][:SAMPLED_FILES]}
        self._wanted = frozenset([*self._columns.values(), *(need.in_input for need in self._optional)])
        self._found: set[str] = set()
        self._shown: Collection[str] = ()
        self._gaps: dict[str, list[str]] = {}
        """By file, the optional columns that it lacks."""

    def note(self, names: Iterable[str], *, source: str | None = None) -> None:
        """Note the columns of a file; `source` is its name if all of its rows have the same ones."""
        names = list(names)
        self._found |= self._wanted.intersection(names)
        self._shown = self._shown or names[:SHOWN_COLUMNS]
        gaps = [need.in_input for need in self._optional if need.in_input not in names]
        if gaps and source is not None:
            self._gaps[source] = gaps

    def problem(self, file: InputFile, *, is_cut: bool) -> str | None:
        """Why a JSONL file has no documents, as far as a sample shows; None for all files that are not sampled.

        Args:
            file: a file without a schema.
            is_cut: it has several pieces. Its sample then decides for all of them what the file is.

        Raises:
            InputError: the file is not UTF-8, or is JSON over several lines.
        """
        if file.format == "warc":
            self.note(WARC_COLUMNS)
        if not (is_cut or file.url in self._sampled):
            return None
        try:
            sample = retried(lambda: sampled(file.url, text=self._text, wanted=self._wanted))
        except Exception as error:
            if not is_transient(error):
                raise
            return None  # the run reads the file again, and names it if its server still fails
        self.note(sample.keys)
        return sample.problem

    @property
    def absent(self) -> list[ColumnNeed]:
        """The optional columns that no file of the source has, as far as its files and samples show."""
        return [need for need in self._optional if self._shown and need.in_input not in self._found]

    def incomplete(self) -> dict[str, str]:
        """By file that lacks an optional column which another file of the source has, why it cannot be used."""
        found = {source: [name for name in gaps if name in self._found] for source, gaps in self._gaps.items()}
        return {
            source: f"no column {names[0]!r}, which other files of the source have"
            for source, names in found.items()
            if names
        }

    def check(self) -> None:
        """Check that each column was found in a file.

        Raises:
            UsageError: no file has one, or none of the sampled lines.
        """
        for key, column in self._columns.items():
            if self._shown and column not in self._found:
                listed = ", ".join(map(str, self._shown))
                guess = did_you_mean(column, map(str, self._shown))
                no_file = f"{key}: no file{self._of_source} has {column!r}"
                raise UsageError(f"{no_file}; columns of the first: {listed}{guess}")
