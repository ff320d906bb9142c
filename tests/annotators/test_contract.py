"""The contract of every annotator. These tests find the annotators of the package themselves."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.annotators.base import Annotator, annotator_types
from colophon.annotators.duplicates import DuplicatesConfig
from colophon.annotators.lists.cluster_table import table_schema
from tests.chat_server import Received, Response, chat_server, completion

# Settings for annotators that require some; a new annotator with a required setting adds its line here.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "blocklist": [
        {"lists": {"a": {"kind": "domains", "entries": ["bbc.co.uk", "x"], "date": "2025-01-31"}}},
        {
            "lists": {
                "ids": {"kind": "ids", "entries": ["theorem", "none"]},
                "urls": {"kind": "url_prefixes", "path": "urls.txt"},
                "hosts": {"kind": "hosts", "entries": ["münchen.de", "::1"]},
            }
        },
    ],
    "columns": [
        {"columns": ["text", "score", "dump"]},
        {
            "columns": {
                "names": {"column": "dump", "rename": {"2009": "old", "none": "unknown"}},
                "tags": {"column": "tags", "separator": ", ", "rename": {"a": "A"}},
                "when": {"column": "dump", "type": "timestamp"},
                "quality": {"column": "score", "bins": {"edges": [0, 2.5], "labels": ["a", "b", "c"]}},
                "third": {"column": "score", "bins": {"quantiles": 3}},
            }
        },
    ],
    "contamination": [
        {"ngram": 2, "benchmarks": {"a": {"path": "qa.jsonl", "columns": ["q", "a"]}, "b": {"path": "urls.txt"}}},
    ],
    "duplicate_keys": [
        {},
        {"method": "exact", "keep": "longest"},
        {"ngram": 2, "bands": 3, "rows": 2, "within": "dump", "keep": "highest", "score": "score"},
    ],
    "duplicates": [{"path": "duplicates.parquet"}],
    "fasttext": [
        {"model": "softmax.bin", "score": {"probability_of": "high"}, "bins": {"edges": [0.2, 0.8]}},
        {"model": "softmax.bin", "score": {"argmax": True}},
        {"model": "ova.bin", "score": {"expected": {"high": 2, "low": 0, "Science & Tech": 1}}, "clip": [0, 1]},
        {"model": "chars.bin", "score": {"probability_of": "low"}, "bins": {"quantiles": 3, "labels": ["a", "b", "c"]}},
    ],
    "embedding": [
        {"static": "static", "model": "heads.safetensors"},
        {
            "static": "static",
            "model": "heads.safetensors",
            "heads": {"quality": {"score": {"probability_of": "high"}, "bins": {"quantiles": 3}}},
        },
        {"column": "meta.vector", "model": "column-heads.safetensors"},
    ],
    "gopher": [{"min_words": 1}],
    "language": [
        {"model": "softmax.bin"},
        {"model": "chars.bin", "scores": ["high"], "thresholds": {"default": 0.2, "low": 0.9}, "rename": {"low": "l"}},
    ],
    "llm_tags": [
        {"model": "small"},
        {"model": "small", "question": "education", "sample": 0.5, "prompt": "{text} {url}"},
    ],
    "pii": [{}, {"kinds": ["phone", "email"], "phone_regions": ["CH"]}],
    "robots": [{"files": "robots.jsonl"}, {"files": "robots.jsonl", "agents": ["*"], "registered_domain": True}],
    "pooled": [
        {"model": "pooled.safetensors"},
        {
            "model": "pooled.safetensors",
            "heads": {
                "quality": {"score": {"probability_of": "high"}, "bins": {"quantiles": 3}},
                "tags": {"score": {"expected": {"a": 1, "b": 2, "c": 3}}, "clip": [1, 2]},
            },
        },
    ],
}
LIBRARIES = {"pii": "phonenumbers", "robots": "protego"}
"""Libraries of extras that an annotator needs; where one is not installed, its tests are skipped."""
CASES = [
    (name, number)
    for name in annotator_types()
    if name not in LIBRARIES or find_spec(LIBRARIES[name])
    for number in range(len(SETTINGS.get(name, [{}])))
]

TEXTS = [
    "theorem proof of energy",
    "click\nlol omg\nbuy",
    None,
    "",
    " \n ",
    "\x00",
    "unseen words",
    "é </s> high",
    "x" * 9999,
    "a@uni.ch, 91.20.30.40 or +41 44 668 18 00",
]
URLS = ["https://www.bbc.co.uk/a?b#c", None, "", "mailto:a@b", "http://[::1]/", "http://münchen.de", "http://[x/", "x"]
DUMPS = ["CC-MAIN-2022-21", None, "", "2009", "none", "CC-MAIN-2013-20"]
IDS = [[0, 1, 2], None, [], [299] * 300, list(range(300)), [7]]
LISTS = [["a", None, "b"], [], None, [""], ["c"]]
VECTORS = [[0.5, -1, 2, 3, 4, 5], None, [], [1] * 6, [float("nan")] * 6, [float("inf"), 1, 2, 3, 4, 5]]
SCORES = [2.5, None, float("nan"), float("inf"), float("-inf"), -1.0, 4.1, 99.0]


def batch_of(picks: list[int]) -> pa.RecordBatch:
    def column(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array([values[pick % len(values)] for pick in picks], kind)

    return pa.record_batch(
        {
            "text": column(TEXTS, pa.string()),
            "url": column(URLS, pa.string()),
            "id": column(["1", None, "", "none"], pa.string()),
            "dump": column(DUMPS, pa.string()),
            "score": column(SCORES, pa.float64()),
            "unrelated": column(SCORES, pa.float64()),
            **{
                f"{name} as text": column(values, pa.string())
                for name, values in (("text", TEXTS), ("url", URLS), ("dump", DUMPS))
            },
            "score as number": column(SCORES, pa.float64()),
            "input_ids": column(IDS, pa.list_(pa.uint16())),
            "document_file": column(["a 1", "b 2", None, "c 3"], pa.string()),
            "document_place": column([0, 7, None, 9, 8, 3], pa.int64()),
            "meta.vector as vector": column(VECTORS, pa.list_(pa.float32())),
            "tags as list": column(LISTS, pa.list_(pa.string())),
        }
    )


ALL = batch_of(list(range(72)))


def respond(one: Received) -> Response:
    """An answer to either question, chosen by the document."""
    words = one.prompt.split()
    asked = one.body["response_format"]["json_schema"]["schema"]["properties"]
    answers = {"topic": "a b", "format": "c", "reason": words[-1], "score": len(words) % 7}
    return completion({name: answers[name] for name in asked})


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with chat_server(respond) as server:
        yield server.endpoint


@pytest.fixture(scope="session")
def built(models: Path, endpoint: str) -> dict[tuple[str, int], Annotator]:
    (models / "urls.txt").write_text("# a list\nbbc.co.uk/a\nhttp://[::1]\n")
    (models / "robots.jsonl").write_text(
        json.dumps({"domain": "bbc.co.uk", "robots_txt": "user-agent: *\ndisallow: /a"})
    )
    (models / "qa.jsonl").write_text(json.dumps({"q": "Proof of energy: lol omg", "a": "unseen words"}))
    write_clusters(models / "duplicates.parquet")
    return {case: build(*case, models=models, endpoint=endpoint) for case in CASES}


def write_clusters(path: Path) -> None:
    rows = {"file": ["a 1", "a 1", "b 2"], "place": [8, 0, 7], "id": ["1", None, "1"]}
    clusters = {"cluster": [0, 0, 0], "size": [3, 3, 3], "kept": [True, False, False]}
    settings = DuplicatesConfig(path=str(path)).of_table
    pq.write_table(pa.table(rows | clusters, schema=table_schema(settings, ["b 2", "a 1"])), path)


def build(name: str, number: int, *, models: Path, endpoint: str) -> Annotator:
    settings = deepcopy(SETTINGS.get(name, [{}])[number])
    if name == "llm_tags":
        settings["endpoint"] = endpoint
    for key in {"model", "files", "path", "static"} & settings.keys():
        settings[key] = str(models / settings[key])
    named = [*settings.get("lists", {}).values(), *settings.get("benchmarks", {}).values()]
    for each in [each for each in named if "path" in each]:
        each["path"] = str(models / each["path"])
    annotator = annotator_types()[name].model_validate(settings).build(f"my_{name}")
    if annotator.num_calibration_documents is not None:
        annotator = annotator.with_calibration(annotator.calibrate([ALL]))
    return annotator


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def annotator(request: pytest.FixtureRequest, built: dict[tuple[str, int], Annotator]) -> Annotator:
    return built[request.param]


def same(left: pa.RecordBatch, right: pa.RecordBatch) -> bool:
    """Whether schemas and values are equal; NaN would equal nothing."""
    return left.schema.equals(right.schema) and left.to_pydict() == right.to_pydict()


def test_the_annotators_are_found() -> None:
    assert {"columns", "crawl", "edu_score", "embedding", "fasttext", "pooled", "url"} <= set(annotator_types())


def test_rows_schema_and_purity(annotator: Annotator) -> None:
    before = ALL.serialize().to_pybytes()
    first, second = annotator.annotate(ALL), annotator.annotate(ALL)
    assert first.schema.equals(annotator.schema)
    assert first.num_rows == ALL.num_rows
    first.validate(full=True)
    assert same(first, second)
    assert ALL.serialize().to_pybytes() == before


def test_no_nan_leaves_an_annotator(annotator: Annotator) -> None:
    for column in annotator.annotate(ALL).columns:
        if pa.types.is_floating(column.type):
            assert not np.isnan(column.drop_null().to_numpy()).any()


def test_an_annotator_reads_only_its_columns(annotator: Annotator) -> None:
    alone = ALL.select(list(annotator.columns))
    assert same(annotator.annotate(alone), annotator.annotate(ALL))


def test_an_empty_batch(annotator: Annotator) -> None:
    empty = annotator.annotate(ALL.slice(0, 0))
    assert empty.num_rows == 0
    assert empty.schema.equals(annotator.schema)


def test_all_nulls(annotator: Annotator) -> None:
    nulls = pa.record_batch({name: pa.nulls(3, ALL.schema.field(name).type) for name in annotator.columns})
    assert {value for row in annotator.annotate(nulls).to_pylist() for value in row.values()} == {None}
    untyped = pa.record_batch({name: pa.nulls(3) for name in annotator.columns})
    assert same(annotator.annotate(untyped), annotator.annotate(nulls))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[1]}")
@given(picks=st.lists(st.integers(0, 71), max_size=40), cut=st.integers(0, 40), data=st.data())
def test_cutting_a_batch_changes_no_row(
    case: tuple[str, int],
    built: dict[tuple[str, int], Annotator],
    picks: list[int],
    cut: int,
    data: st.DataObject,
) -> None:
    """annotate(a + b) equals annotate(a) + annotate(b), also for slices that start inside their buffers."""
    annotator, batch = built[case], batch_of(picks)
    whole = annotator.annotate(batch)
    cut = min(cut, batch.num_rows)
    parts = [annotator.annotate(batch.slice(0, cut)), annotator.annotate(batch.slice(cut))]
    assert same(whole, pa.concat_batches(parts))
    if picks:
        row = data.draw(st.integers(0, len(picks) - 1))
        assert same(whole.slice(row, 1), annotator.annotate(batch.slice(row, 1)))


def test_string_columns_of_every_kind(annotator: Annotator) -> None:
    expected = annotator.annotate(ALL)
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        columns = [
            column.dictionary_encode()
            if pa.types.is_dictionary(kind) and pa.types.is_string(column.type)
            else (column.cast(kind) if pa.types.is_string(column.type) else column)
            for column in ALL.columns
        ]
        assert same(annotator.annotate(pa.record_batch(columns, ALL.schema.names)), expected)


def test_a_pickled_annotator_annotates_the_same(annotator: Annotator) -> None:
    unpickled = pickle.loads(pickle.dumps(annotator))
    unpickled.load()
    assert unpickled.fingerprint == annotator.fingerprint
    assert same(unpickled.annotate(ALL), annotator.annotate(ALL))


def test_settings_are_json(annotator: Annotator) -> None:
    assert json.loads(json.dumps(annotator.settings)) == annotator.settings


def test_column_names_are_unique(built: dict[tuple[str, int], Annotator]) -> None:
    first_of_each = [annotator for (_, number), annotator in built.items() if number == 0]
    names = [name for annotator in first_of_each for name in annotator.schema.names]
    assert len(names) == len(set(names))
