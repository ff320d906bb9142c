"""The `pii` annotator: personal data in a text, counted and located, and texts in which placeholders replace it.

Cost: most texts have none of the characters that a match needs, which Arrow finds at some 100 MB/s; see
docs/annotators.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from colophon.annotators.base import AnnotatorConfig, AnnotatorError, TextRewriter
from colophon.annotators.columns import string_column
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.personal_data.emails import emails
from colophon.annotators.personal_data.ibans import ibans
from colophon.annotators.personal_data.ip_addresses import ip_addresses
from colophon.annotators.personal_data.spans import KINDS, Finder, Kind, Span, found_spans, replaced
from colophon.shards.common.errors import missing_library

_CODE_VERSION = 1
_SPAN = pa.struct([("kind", pa.string()), ("start", pa.int32()), ("end", pa.int32())])

_NEEDED: dict[Kind, str] = {
    "email": "@",
    "ip": r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|\b[23][0-9A-Fa-f]{3}:",
    "iban": r"[A-Z]{2}[0-9]{2}[A-Z0-9 \x{a0}\x{202f}-]{11}",
    "phone": r"[0-9][^\pL]{0,5}[0-9][^\pL]{0,5}[0-9][^\pL]{0,5}[0-9]",
}
"""A text with a match of a kind has this: a substring of e-mail addresses, regular expressions of the others."""


class PiiConfig(AnnotatorConfig):
    """Finds e-mail addresses, public IP addresses, IBANs and telephone numbers.

    Example:

        [annotators.pii]
        kinds = ["email", "ip", "iban"]

        [tokenizer]
        name = "tekken"
        rewritten_by = ["pii"]
    """

    type_name: ClassVar[str] = "pii"

    kinds: tuple[Kind, ...] = Field(default=("email", "ip", "iban"), min_length=1)
    """The kinds to find: `email`, `ip` (public addresses of version 4 and 6), `iban` (with its checksum) and `phone`
    (valid numbers; needs the extra `pii`)."""
    phone_regions: tuple[str, ...] = Field(default=(), max_length=50)
    """With `phone`: countries whose national numbers count too, as `CH` or `US`. Without any, only numbers that begin
    with `+` and a country code."""

    @field_validator("kinds")
    @classmethod
    def _each_once(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        return tuple(kind for kind in KINDS if kind in kinds)

    def build(self, name: str) -> PiiAnnotator:
        """The annotator under `name`.

        Raises:
            AnnotatorError: phonenumbers is needed and is not installed, or does not know a region.
        """
        if "phone" in self.kinds:
            try:
                from phonenumbers import SUPPORTED_REGIONS
            except ImportError:
                raise AnnotatorError(missing_library(f"annotators.{name}", "phonenumbers", extra="pii")) from None
            unknown = [region for region in self.phone_regions if region not in SUPPORTED_REGIONS]
            if unknown:
                raise AnnotatorError(f"annotators.{name}.phone_regions: no region {unknown[0]!r}; examples: CH, US")
        elif self.phone_regions:
            raise AnnotatorError(f"annotators.{name}.phone_regions: kinds does not have 'phone'")
        return PiiAnnotator(name, config=self)


class PiiAnnotator(TextRewriter):
    """Finds personal data in `text`.

    Output columns under the name NAME:
      - `NAME_count` (int32): the number of spans, and `NAME_emails`, `NAME_ips`, `NAME_ibans`, `NAME_phones` (int32)
        of those kinds that are asked for;
      - `NAME_spans` (list of structs): kind, start and end of each in characters, in order, without overlaps.
    All are null for a null text.
    """

    columns = ("text",)

    def __init__(self, name: str, *, config: PiiConfig) -> None:
        self.name = name
        self._config = config
        counts = [f"{name}_count", *(f"{name}_{kind}s" for kind in config.kinds)]
        self.schema = pa.schema([*((column, pa.int32()) for column in counts), (f"{name}_spans", pa.list_(_SPAN))])
        self.settings: dict[str, Any] = {
            "type": PiiConfig.type_name,
            "code_version": _CODE_VERSION,
            "name": name,
            "config": config.model_dump(mode="json"),
            "tldextract": version("tldextract"),
            **({"phonenumbers": version("phonenumbers")} if "phone" in config.kinds else {}),
        }

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_finders"}

    @cached_property
    def _finders(self) -> list[tuple[Kind, Finder]]:
        finders: dict[Kind, Finder] = {"email": emails, "ip": ip_addresses, "iban": ibans}
        if "phone" in self._config.kinds:
            from colophon.annotators.personal_data.phones import phones

            finders["phone"] = partial(phones, regions=self._config.phone_regions or (None,))
        return [(kind, finders[kind]) for kind in self._config.kinds]

    def annotate(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """See `Annotator.annotate`; the columns are those of the class."""
        texts = TextPreparation.valid(string_column(batch, "text"))
        spans: list[list[Span] | None] = [None if null else [] for null in texts.is_null().to_pylist()]
        for row, _, found in self._found(texts):
            spans[row] = found
        counts = [_counts(spans, None), *(_counts(spans, kind) for kind in self._config.kinds)]
        listed = [each if each is None else [_as_struct(span) for span in each] for each in spans]
        return pa.record_batch([*counts, pa.array(listed, pa.list_(_SPAN))], schema=self.schema)

    def rewrite(self, texts: pa.Array) -> pa.Array:
        """The texts with `<email-pii>`, `<ip-pii>`, `<iban-pii>` and `<phone-pii>` in place of the spans."""
        texts = TextPreparation.valid(texts)
        is_changed, changed = np.zeros(len(texts), bool), []
        for row, text, found in self._found(texts):
            is_changed[row] = True
            changed.append(replaced(text, found))
        return pc.replace_with_mask(texts, pa.array(is_changed), pa.array(changed, texts.type)) if changed else texts

    def _found(self, texts: pa.Array) -> Iterator[tuple[int, str, list[Span]]]:
        """Row, text and spans of each text that has some, in order."""
        candidates = {kind: _candidates(texts, kind) for kind in self._config.kinds}
        for row in np.flatnonzero(np.any(list(candidates.values()), axis=0)).tolist():
            text = texts[row].as_py()
            spans = found_spans(text, [(kind, find) for kind, find in self._finders if candidates[kind][row]])
            if spans:
                yield row, text, spans


def _candidates(texts: pa.Array, kind: Kind) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """bool [texts]: whether a text has what a match of a kind needs."""
    needed = _NEEDED[kind]
    match = pc.match_substring if kind == "email" else pc.match_substring_regex
    return np.asarray(pc.fill_null(match(texts, needed), False).to_numpy(zero_copy_only=False))


def _counts(spans: list[list[Span] | None], kind: Kind | None) -> pa.Array:
    return pa.array(
        [None if each is None else sum(kind in (None, span.kind) for span in each) for each in spans], pa.int32()
    )


def _as_struct(span: Span) -> dict[str, Any]:
    return {"kind": span.kind, "start": span.start, "end": span.end}
