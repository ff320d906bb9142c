from __future__ import annotations

from colophon.trainer.probes.notes import notes
from colophon.trainer.probes.report import ClassSize, Excluded
from tests.trainer.probes.results import column_report, result_with


def test_normal_parts_and_probes_have_no_notes() -> None:
    assert notes(column_report({"a": (60, 20, 20), "b": (36, 10, 10)}, [result_with()])) == []


def test_small_classes_uneven_parts_and_warnings_are_noted() -> None:
    classes = {"a": (203, 40, 38), **dict.fromkeys("bcde", (50, 9, 10))}
    results = [
        result_with("not_above_majority", "first_epoch", layer=2),
        result_with("not_above_majority", layer=0),
        result_with("not_above_majority", layer=0, model="untrained"),
        result_with("limit", layer=1, model="untrained"),
        result_with("not_above_majority", "first_epoch", model="shuffled"),
    ]
    few, parts, trained, untrained, first, limit = notes(column_report(classes, results))
    assert few == (
        "topic: macro-F1 depends on classes with fewer than 10 documents in a part: b (50 train, 9 validation, "
        "10 test); c (50 train, 9 validation, 10 test); d (50 train, 9 validation, 10 test); and 1 more"
    )
    assert parts == (
        "topic: each class should be divided into 60% train, 20% validation, 20% test; class 'b' deviates most, with "
        "72% train, 13% validation, 14% test: documents of one domain are never divided"
    )
    guessing = "no more accurate than predicting the most frequent class"
    assert trained == f"topic: 2 probes of the trained model: {guessing} (mean, mlp of layers 0, 2)"
    assert untrained == f"topic: 1 probe of the untrained model: {guessing} (mean, mlp of layer 0)"
    assert first == (
        "topic: 1 probe of the trained model: lowest validation loss after the first epoch (mean, mlp of layer 2)"
    )
    assert limit == (
        "topic: 1 probe of the untrained model: not converged at the last iteration or epoch (mean, mlp of layer 1)"
    )


def test_a_class_that_deviates_is_noted_although_the_whole_parts_do_not() -> None:
    (line,) = notes(column_report({"a": (280, 100, 120), "b": (80, 20, 10)}, []))
    assert "class 'b' deviates most, with 73% train, 18% validation, 9% test" in line


def test_excluded_large_classes_are_named_with_the_option_that_includes_them() -> None:
    classes = {"a": (60, 20, 20), "b": (60, 20, 20)}
    one = Excluded(
        few_documents={"z": ClassSize(documents=3, groups=3)}, few_groups={"2020": ClassSize(documents=788, groups=1)}
    )
    assert notes(column_report(classes, [], excluded=one)) == [
        "topic: excluded, because the documents cannot be divided by group: class '2020' (788 documents in 1 group of "
        "domain); --split-by document would include it"
    ]
    sizes = {name: ClassSize(documents=20 + number, groups=2) for number, name in enumerate("cdef")}
    more = Excluded(few_groups=sizes, few_documents_in_a_part={"g": ClassSize(documents=30, groups=4)})
    (line,) = notes(column_report(classes, [], excluded=more))
    assert line.endswith(
        "by group: class 'g' (30 documents in 4 groups of domain); class 'f' (23 documents in 2 groups of domain); "
        "class 'e' (22 documents in 2 groups of domain); and 2 more; --split-by document would include them"
    )
