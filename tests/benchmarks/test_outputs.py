"""Outputs that count as equal, and outputs that do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.job import Classifier, Job, Vocabulary, load
from benchmarks.outputs import Expected, OutputDiffersError, compare, expected_of, read_arrow, read_parquet

_TEXTS = {"a": "some words", "b": "", "c": " \u00a0words in white space", "d": "  more words\n", "e": None}
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "quality": pa.float64(),
        "topic": pa.string(),
        "topic_score": pa.float64(),
        "input_ids": pa.list_(pa.uint32()),
    }
)


def job_in(directory: Path) -> Job:
    """A job over one file."""
    file = directory / "input.parquet"
    order = ["d", "a", "e", "c", "b"]
    pq.write_table(pa.table({"id": order, "text": [_TEXTS[i] for i in order]}), file)
    output = directory / "output"
    output.mkdir(exist_ok=True)
    classifier = Classifier(model="m.bin", labels=("__label__x", "__label__y"))
    vocabulary = Vocabulary(tiktoken="v", pattern_name="gpt2", pattern="p", huggingface="h", num_ids=300)
    return Job(
        files=(str(file),),
        output=str(output),
        workers=2,
        quality=classifier,
        high="__label__x",
        topic=classifier,
        vocabulary=vocabulary,
        json_lines="lines",
    )


def output(**changes: Sequence[object]) -> pa.Table:
    columns: dict[str, Sequence[object]] = {
        "id": ["a", "b", "c", "d", "e"],
        "quality": [0.25, 0.5, 0.75, 0.125, None],
        "topic": ["__label__x", "__label__y", "__label__x", "__label__x", None],
        "topic_score": [0.9, 0.8, 0.7, 0.6, None],
        "input_ids": [[1, 2], [], [3], [4, 5, 6], []],
    }
    return pa.table({**columns, **changes}, schema=_SCHEMA)


@pytest.fixture
def expected(tmp_path: Path) -> Expected:
    return expected_of(job_in(tmp_path))


def test_the_documents_of_the_input(expected: Expected) -> None:
    assert expected.ids.to_pylist() == ["a", "b", "c", "d", "e"]
    assert expected.blank.tolist() == [False, True, False, False, True]
    assert expected.padded.tolist() == [False, False, True, False, False]


def test_equal_outputs_agree(expected: Expected) -> None:
    agreement = compare(output(), output(quality=[0.250015, 0.9, 0.75, 0.125, 0.3]), expected=expected)
    assert agreement.documents == 5
    assert agreement.tokens == 6
    assert agreement.largest_difference == pytest.approx(1.5e-5)
    assert (agreement.other_labels, agreement.not_compared) == (0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quality": [0.25003, 0.5, 0.75, 0.125, None]}, "quality differs by up to 3e-05, in 1 documents"),
        ({"topic_score": [0.9, 0.8, 0.7, 0.5, None]}, "topic_score differs by up to 0.1"),
        ({"quality": [0.25, 0.5, None, 0.125, None]}, "1 documents have no quality"),
        (
            {"topic": ["__label__y", "__label__y", "__label__x", "__label__x", None]},
            "1 of 5 documents have a different label",
        ),
        ({"topic": [None, "__label__y", "__label__x", "__label__x", None]}, "1 of 5 documents have a different label"),
        ({"input_ids": [[1, 2], [], [3], [4, 5, 7], []]}, "1 tokens differ"),
        ({"input_ids": [[1], [2], [3], [4, 5, 6], []]}, "2 documents have a different number of tokens"),
        ({"id": ["a", "b", "c", "d", "f"]}, "5 documents of 5; 1 missing, 1 unknown"),
        ({"id": ["a", "a", "c", "d", "e"]}, "5 documents of 5; 1 missing, 0 unknown"),
    ],
)
@pytest.mark.parametrize("swap", [False, True], ids=["found", "reference"])
def test_a_difference_is_an_error(
    expected: Expected, changes: dict[str, Sequence[object]], message: str, swap: bool
) -> None:
    pair = (output(**changes), output()) if swap else (output(), output(**changes))
    with pytest.raises(OutputDiffersError) as caught:
        compare(*pair, expected=expected)
    assert message in str(caught.value)


def test_a_missing_document_is_an_error(expected: Expected) -> None:
    with pytest.raises(OutputDiffersError, match="4 documents of 5; 1 missing"):
        compare(output(), output().slice(0, 4), expected=expected)
    with pytest.raises(OutputDiffersError, match="10 documents of 5"):
        compare(output(), pa.concat_tables([output(), output()]).sort_by("id"), expected=expected)


def test_a_contestant_that_strips_texts_may_score_padded_ones_differently(expected: Expected) -> None:
    other = output(quality=[0.25, 0.5, 0.1, 0.125, None])
    assert compare(output(), other, expected=expected, strips=True).not_compared == 3
    with pytest.raises(OutputDiffersError, match="quality"):
        compare(output(), other, expected=expected)


def write_arrow(directory: Path, table: pa.Table) -> None:
    with pa.OSFile(str(directory / "input.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def write_parquet(directory: Path, table: pa.Table) -> None:
    pq.write_table(table, directory / "part.parquet")


@pytest.mark.parametrize(("write", "read"), [(write_arrow, read_arrow), (write_parquet, read_parquet)])
def test_the_librarys_offset_is_subtracted(
    tmp_path: Path, write: Callable[[Path, pa.Table], None], read: Callable[[Job], pa.Table]
) -> None:
    job = job_in(tmp_path)
    with_offset = [0.25001, 0.50001, 0.75001, 0.12501, None]
    written = output(quality=with_offset).take(pa.array([3, 1, 4, 0, 2]))
    narrow = written.schema.set(1, pa.field("quality", pa.float32())).set(
        4, pa.field("input_ids", pa.list_(pa.uint16()))
    )
    write(Path(job.output), written.cast(narrow))
    found = read(job)
    assert found["id"].to_pylist() == ["a", "b", "c", "d", "e"]
    assert found["input_ids"].to_pylist() == output()["input_ids"].to_pylist()
    assert np.allclose(found["quality"].to_numpy()[:4], [0.25, 0.5, 0.75, 0.125], atol=1e-7)


def test_a_job_is_read_back(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    assert load(job.save(tmp_path / "jobs" / "job.json")) == job
    assert job.at(tmp_path / "x", workers=1).workers == 1
