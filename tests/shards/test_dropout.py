"""Dropout depends on seed and document id alone, and drops the share of documents that it is set to."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colophon.shards.layouts import dropped
from tests.shards import oracle
from tests.shards.cases import Case, make_layout, rows_of, segments_of
from tests.shards.oracle import Document


class TestDropout:
    def kept(self, case: Case) -> dict[str | None, bool]:
        """Document id to whether the document has its metadata."""
        found = {}
        for _, tokens in segments_of(rows_of(case.pack())):
            assert tokens[0].document is not None
            has = any(token.role in ("metadata", "meta_token") for token in tokens)
            found[case.documents[tokens[0].document].id] = has
        return found

    def case(self, names: list[str], *, position: str = "prepend", dropout: float = 0.3, seed: int = 0) -> Case:
        template = {"template": "x"} if position != "meta_tokens" else {}
        return Case(
            layout=make_layout(position, dropout=dropout, **template),
            documents=tuple(Document(name, (20,)) for name in names),
            sequence_length=200,
            seed=seed,
        )

    @given(st.lists(st.text(max_size=5), unique=True, min_size=1, max_size=30), st.data())
    @settings(max_examples=50)
    def test_dropout_does_not_depend_on_order_and_partition(self, names: list[str], data: st.DataObject) -> None:
        together = self.kept(self.case(names))
        cut = data.draw(st.integers(0, len(names)))
        shuffled = data.draw(st.permutations(names))
        parts = {**self.kept(self.case(shuffled[:cut])), **self.kept(self.case(shuffled[cut:]))}
        assert parts == together

    @given(st.lists(st.text(max_size=5), unique=True, min_size=1, max_size=30), st.integers(-(2**63), 2**63 - 1))
    @settings(max_examples=50)
    def test_dropout_does_not_depend_on_layout_and_method(self, names: list[str], seed: int) -> None:
        first = self.kept(self.case(names, seed=seed))
        assert self.kept(self.case(names, position="append", seed=seed)) == first
        assert self.kept(self.case(names, position="meta_tokens", seed=seed)) == first
        assert self.kept(self.case(names, seed=seed).where(method="best_fit")) == first
        assert first == {name: not oracle.is_dropped(name, dropout=0.3, seed=seed) for name in names}

    def test_seeds_drop_different_documents(self) -> None:
        names = [f"doc-{i}" for i in range(200)]
        assert self.kept(self.case(names, seed=0)) != self.kept(self.case(names, seed=1))

    def test_more_dropout_drops_the_same_documents_and_more(self) -> None:
        names = [f"doc-{i}" for i in range(500)]
        lost = [
            {name for name, kept in self.kept(self.case(names, dropout=rate)).items() if not kept}
            for rate in (0.0, 0.1, 0.5, 1.0)
        ]
        assert lost[0] == set()
        assert lost[3] == set(names)
        assert lost[0] < lost[1] < lost[2] < lost[3]

    @pytest.mark.parametrize("rate", [0.1, 0.5])
    @pytest.mark.parametrize("seed", [0, 1, 12345])
    def test_the_share_is_close_to_the_rate(self, rate: float, seed: int) -> None:
        # Six standard deviations of a binomial: one false alarm in 500 million.
        num_documents = 20_000
        names = [f"<urn:uuid:{i:08x}>" for i in range(num_documents)]
        num_dropped = self.case(names, dropout=rate, seed=seed).metadata().counts["documents_dropped"]
        deviation = math.sqrt(num_documents * rate * (1 - rate))
        assert abs(num_dropped - num_documents * rate) < 6 * deviation

    def test_seeds_are_independent(self) -> None:
        """At 50 %, a second seed drops half of the documents that the first drops, within six standard deviations."""
        names = [f"doc-{i}" for i in range(20_000)]
        masks = [dropped(names, dropout=0.5, seed=seed) for seed in (0, 1, -1, 256)]
        for a, b in combinations(masks, 2):
            assert abs((a & b).sum() - 5_000) < 6 * math.sqrt(20_000 * 0.25 * 0.75)
