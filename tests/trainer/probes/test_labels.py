from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colophon.trainer.errors import TrainerError
from colophon.trainer.probes.labels import MIN_DOCUMENTS, label_documents
from colophon.trainer.probes.report import ClassSize, Excluded

documents = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.one_of(st.none(), st.integers(0, 15).map(str))),
    min_size=150,
    max_size=300,
)


@given(documents)
@settings(max_examples=40, deadline=None)
def test_parts_share_no_group_and_every_document_is_in_a_part_or_counted(
    rows: list[tuple[str | None, str | None]],
) -> None:
    values, groups = pa.array([row[0] for row in rows]), pa.array([row[1] for row in rows])
    try:
        found = label_documents(values, groups, name="topic", split_by="domain")
    except TrainerError as error:
        assert "fewer than two classes" in str(error)
        return
    assert found.split_by == "domain"
    parts = list(found.split.named().values())
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(found.rows)))
    in_part = [{rows[found.rows[i]][1] for i in part} for part in parts]
    assert not in_part[0] & in_part[1]
    assert not in_part[0] & in_part[2]
    assert not in_part[1] & in_part[2]
    assert [found.classes[label] for label in found.labels] == [rows[row][0] for row in found.rows]
    classes = {**found.excluded.few_documents, **found.excluded.by_group()}
    excluded = found.excluded.documents_without_value + sum(size.documents for size in classes.values())
    assert len(found.rows) + excluded == len(rows)
    assert not set(classes) & set(found.classes)
    for counts in found.counts().values():
        assert min(counts.values()) >= 3
        assert sum(counts.values()) >= MIN_DOCUMENTS
    assert sum(found.counts()[found.classes[0]].values()) == (found.labels == 0).sum()


def test_parts_have_their_shares_where_groups_are_small() -> None:
    random = np.random.default_rng(0)
    values = pa.array(random.choice(["a", "b", "c"], 3000, p=[0.6, 0.3, 0.1]))
    found = label_documents(values, pa.array(random.integers(0, 300, 3000)), name="topic", split_by="domain")
    for counts in found.counts().values():
        shares = np.array(list(counts.values())) / sum(counts.values())
        np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.03)


def test_rare_classes_and_classes_in_few_groups_are_excluded_and_named() -> None:
    values = ["a"] * 60 + ["b"] * 60 + ["rare"] * 19 + ["one domain"] * 90 + [None] * 7
    groups = [str(i % 12) for i in range(139)] + ["x"] * 90 + ["y"] * 7
    found = label_documents(pa.array(values), pa.array(groups), name="topic", split_by="domain")
    assert found.classes == ["a", "b"]
    assert found.excluded == Excluded(
        documents_without_value=7,
        few_documents={"rare": ClassSize(documents=19, groups=12)},
        few_groups={"one domain": ClassSize(documents=90, groups=1)},  # the largest of all
    )


def test_a_class_that_is_nearly_all_in_one_group_is_excluded() -> None:
    values = ["a"] * 60 + ["b"] * 60 + ["c"] * 60
    groups = [str(i % 12) for i in range(120)] + ["x"] * 58 + ["1", "2"]
    found = label_documents(pa.array(values), pa.array(groups), name="topic", split_by="domain")
    assert found.classes == ["a", "b"]
    assert found.excluded == Excluded(few_documents_in_a_part={"c": ClassSize(documents=60, groups=3)})


def test_classes_that_are_each_in_one_group_are_split_by_document() -> None:
    hosts = [f"{i % 3}.example.org" for i in range(120)]
    found = label_documents(pa.array(hosts), pa.array(["example.org"] * 120), name="url_host", split_by="domain")
    assert found.split_by == "document"
    assert len(found.classes) == 3
    assert Counter(map(len, found.split.named().values())) == Counter({72: 1, 24: 2})


def test_a_domain_too_large_for_the_test_part_is_trained_on() -> None:
    random = np.random.default_rng(0)
    groups = [*["huge"] * 470, *["large"] * 250, *map(str, random.integers(0, 60, 280))]
    values = random.choice(["a", "b", "c"], 1000).tolist()
    found = label_documents(pa.array(values), pa.array(groups), name="topic", split_by="domain")
    train = {groups[found.rows[i]] for i in found.split.train}
    assert {"huge", "large"} <= train
    sizes = {part: len(index) for part, index in found.split.named().items()}
    assert sizes["train"] == 720  # the large domains take more than its share
    assert abs(sizes["validation"] - sizes["test"]) <= 10


def test_large_domains_are_in_all_parts_if_there_are_no_others() -> None:
    groups = [str(number % 4) for number in range(200)]
    values = np.random.default_rng(0).choice(["a", "b"], 200).tolist()
    found = label_documents(pa.array(values), pa.array(groups), name="topic", split_by="domain")
    assert [len(part) for part in found.split.named().values()] == [100, 50, 50]


def test_floating_point_numbers_form_classes_of_similar_size() -> None:
    scores = np.random.default_rng(0).random(500)
    found = label_documents(pa.array(scores), None, name="quality_score", split_by="document")
    assert len(found.classes) == 5
    assert np.bincount(found.labels).min() > 95


def test_the_error_on_too_few_classes_lists_the_largest() -> None:
    with pytest.raises(
        TrainerError, match=r"column 'topic' has fewer than two classes .* largest are a 40, b 5;"
    ) as no:
        label_documents(pa.array(["a"] * 40 + ["b"] * 5), None, name="topic", split_by="document")
    assert str(no.value).endswith("(more documents may help)")
    groups = pa.array([str(i % 9) for i in range(40)] + ["x"] * 40)
    with pytest.raises(
        TrainerError, match=r"fewer than 3 groups: 1, .*\(more documents or --split-by document may help"
    ):
        label_documents(pa.array(["a"] * 40 + ["b"] * 40), groups, name="topic", split_by="domain")
