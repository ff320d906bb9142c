"""Metadata of documents as ids: cut, dropped, missing, and the counts of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.shards import metadata as metadata_module
from colophon.shards.metadata import DocumentMetadata, document_metadata, shortened
from colophon.shards.templates import render
from tests.shards import oracle
from tests.shards.cases import ByteTokenizer, Case, cases, documents_of, layouts, make_layout


def ids_of(metadata: DocumentMetadata) -> list[list[int] | None]:
    """The ids in each document's wrapper; None without a wrapper."""
    return [
        metadata.ids[start : start + length].tolist() if wrapped else None
        for wrapped, start, length in zip(metadata.wrapped, metadata.starts, metadata.lengths, strict=True)
    ]


def metadata_of(values: list[str | None], **settings: Any) -> DocumentMetadata:
    layout = make_layout("prepend", **{"template": "{url}", "dropout": 0.0, **settings})
    names = pa.array([chr(ord("a") + i) for i in range(len(values))], pa.string())
    columns = {"url": pa.array(values, pa.string())}
    return document_metadata(layout, ids=names, columns=columns, tokenizer=ByteTokenizer(), seed=0)


class TestIds:
    def test_each_documents_own(self) -> None:
        assert ids_of(metadata_of(["ab", "c", "ab", "é"])) == [[97, 98], [99], [97, 98], [195, 169]]

    def test_equal_metadata_is_kept_once(self) -> None:
        metadata = metadata_of(["ab", "c", "ab"] * 100)
        assert metadata.ids.tolist() == [97, 98, 99]

    def test_too_long_keeps_the_first_tokens(self) -> None:
        metadata = metadata_of(["abcde", "abc", "ab", "xyzw"], max_metadata_tokens=3)
        assert ids_of(metadata) == [[97, 98, 99], [97, 98, 99], [97, 98], [120, 121, 122]]
        assert metadata.counts == {
            "documents_dropped": 0,
            "documents_without_metadata": 0,
            "metadata_cut": 2,
            "metadata_tokens_cut": 3,
        }

    def test_null_is_an_empty_wrapper_and_counted(self) -> None:
        metadata = metadata_of([None, "ab", None])
        assert ids_of(metadata) == [[], [97, 98], []]
        assert metadata.counts["documents_without_metadata"] == 2

    def test_null_without_a_wrapper(self) -> None:
        assert ids_of(metadata_of([None, "ab"], when_dropped="nothing")) == [None, [97, 98]]

    def test_an_empty_string_is_not_null(self) -> None:
        metadata = metadata_of(["", "ab"], when_dropped="nothing")
        assert ids_of(metadata) == [[], [97, 98]]
        assert metadata.counts["documents_without_metadata"] == 0

    @pytest.mark.parametrize("values", [[], [None], [None, None]])
    def test_no_metadata_at_all(self, values: list[None]) -> None:
        assert ids_of(metadata_of(list(values))) == [[]] * len(values)

    def test_dropped_metadata_is_not_counted_as_cut(self) -> None:
        # The ids `a` and `c` give 0.23 and 0.81: a rate of 0.5 drops the first only.
        metadata = metadata_of(["abcde", None, "abcde"], max_metadata_tokens=3, dropout=0.5)
        assert ids_of(metadata) == [[], [], [97, 98, 99]]
        assert metadata.counts == {
            "documents_dropped": 1,
            "documents_without_metadata": 1,
            "metadata_cut": 1,
            "metadata_tokens_cut": 2,
        }

    def test_plain_has_none(self) -> None:
        case = Case(layout=make_layout("plain"), documents=documents_of([1], [2]), sequence_length=4)
        metadata = case.metadata()
        assert ids_of(metadata) == [None, None]
        assert metadata.counts == {}

    def test_meta_tokens_need_no_ids(self) -> None:
        layout = make_layout("meta_tokens", num_meta_tokens=3)
        metadata = Case(layout=layout, documents=documents_of([1], [2]), sequence_length=20).metadata()
        assert metadata.lengths.tolist() == [3, 3]
        assert metadata.wrapped.all()
        assert len(metadata.ids) == 0


class TestAgainstTheOracle:
    @given(cases(layout=layouts(positions=["plain", "prepend", "append"])))
    def test_ids_and_counts(self, case: Case) -> None:
        metadata = case.metadata()
        assert ids_of(metadata) == [oracle.metadata_ids(case.layout, d, seed=case.seed) for d in case.documents]
        counts = oracle.metadata_counts(case.layout, list(case.documents), seed=case.seed)
        assert {k: n for k, n in metadata.counts.items() if n} == {k: n for k, n in counts.items() if n}

    @given(st.lists(st.sampled_from(["ab", "cdefgh", "", None]), max_size=8), st.integers(1, 5))
    def test_cut_tokens_are_counted_exactly(self, values: list[str | None], budget: int) -> None:
        metadata = metadata_of(values, max_metadata_tokens=budget)
        given_tokens = sum(len(value or "") for value in values)
        assert int(metadata.lengths.sum()) + metadata.counts["metadata_tokens_cut"] == given_tokens
        assert np.all(metadata.lengths <= budget)


class TestLongMetadata:
    """Metadata is cut to 64 bytes for each token of its budget before it is tokenized."""

    def test_its_first_tokens_are_those_of_the_whole(self) -> None:
        long = ["x" * 100_000, "é🙂 " * 30_000, "two words " * 10_000]
        metadata = metadata_of([*long, "ab"], max_metadata_tokens=5)
        assert ids_of(metadata) == [list(value.encode()[:5]) for value in (*long, "ab")]
        assert len(metadata.ids) <= 3 * 64 * 5 + 2
        assert metadata.counts["metadata_cut"] == 3

    @given(
        st.lists(st.none() | st.text(max_size=300) | st.sampled_from(["a b " * 90, "é" * 3333]), max_size=6),
        st.integers(1, 4),
        st.sampled_from(["{url}", "{url}{url}", "at {url} and {url}", "{url:.3}", "{url:>700}"]),
    )
    def test_cut_columns_give_the_ids_of_whole_ones(self, values: list[str | None], most: int, template: str) -> None:
        metadata = metadata_of(values, max_metadata_tokens=most, template=template)
        rendered = [None if value is None else template.format(url=value) for value in values]
        assert ids_of(metadata) == [[] if text is None else list(text.encode()[:most]) for text in rendered]

    @given(st.lists(st.none() | st.text(max_size=40)), st.integers(1, 30), st.booleans())
    def test_a_cut_string_is_a_beginning_of_its_string(
        self, values: list[str | None], most: int, at_words: bool
    ) -> None:
        array = pa.array(values, pa.string())
        for value, short in zip(values, shortened(array, most, at_words=at_words).to_pylist(), strict=True):
            if value is None or len(value.encode()) <= most:
                assert short == value
            else:
                assert value.startswith(short)
                assert len(short.encode()) <= most + 3
                assert at_words or len(short.encode()) >= most

    def test_a_template_of_many_wide_fields_is_rendered_for_few_documents_at_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes: list[int] = []

        def watched(*arguments: Any, **options: Any) -> pa.Array:
            rendered = render(*arguments, **options)
            sizes.append(rendered.nbytes)
            return rendered

        monkeypatch.setattr(metadata_module, "render", watched)
        metadata = metadata_of([f"u{i}" for i in range(2000)], template="{url:>1000}" * 100, max_metadata_tokens=2)
        assert ids_of(metadata) == [[32, 32]] * 2000
        assert sum(sizes) > 200_000_000
        assert max(sizes) < 64 << 20

    def test_it_is_cut_at_a_word(self) -> None:
        array = pa.array(["some words here", "nospacesinhere"])
        assert shortened(array, 11, at_words=True).to_pylist() == ["some words", "nospacesinh"]
