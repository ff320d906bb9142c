from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from colophon.shards.arrow_files import read_table
from colophon.shards.common.errors import ShardError
from colophon.shards.manifest import read_manifest
from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from colophon.trainer.checkpoint import TrainingState
from colophon.trainer.config import TrainConfig
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.bootstrap import RatioDraws
from colophon.trainer.evaluation.conditions import evaluate
from colophon.trainer.evaluation.document_crops import RunDocuments
from colophon.trainer.evaluation.groups import by_value, groups_of
from colophon.trainer.evaluation.results import Evaluation
from colophon.trainer.evaluation.settings import EvaluatedModel, EvaluationSettings
from colophon.trainer.inference.contexts import (
    condition_names,
    derangement,
    max_text_tokens_by_layout,
    trained_layout,
    validation_layout,
)
from colophon.trainer.inference.text_loss import text_losses
from colophon.trainer.inference.trained_model import TrainedModel, load_trained
from colophon.trainer.model import Decoder
from tests.pipeline.project import RECIPE, colophon, run, write_project
from tests.trainer.counting import CountingTokenizer, counting_layout, train_counting, wrapped, write_counting_run
from tests.trainer.runs import SPECIAL, TINY_MODEL, TOKENIZER

LAYOUTS = {"plain": "none", "prepend-url": "true", "append-quality": "true", "meta-tokens": "meta_tokens"}
"""Layouts of the small project, with the condition that equals training."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a small project. No document is cut, and no metadata is dropped."""
    root = tmp_path_factory.mktemp("project")
    write_project(root)
    recipe = RECIPE.replace("sequence_length = 64", 'sequence_length = 300\nmethod = "best_fit"')
    recipe = recipe.replace("max_metadata_tokens", "dropout = 0.0\nmax_metadata_tokens")
    tiny = "\n".join(f"{key} = {value}" for key, value in TINY_MODEL.items())
    for layout in LAYOUTS:
        recipe += f'[train.{layout}]\nlayout = "{layout}"\nsteps = 2\nbatch_size = 2\ndevice = "cpu"\n'
        recipe += f'validation_output = "same"\n[train.{layout}.model]\n{tiny}\n'
    (root / "recipe.toml").write_text(recipe, encoding="utf-8")
    with contextlib.chdir(root) if hasattr(contextlib, "chdir") else _directory(root):
        assert run().code == 0
        assert run("--set", "output.path=same").code == 0  # validation needs documents of a different run
        for layout in LAYOUTS:
            called = colophon("train", "recipe.toml", "--name", layout)
            assert called.code == 0, called.err
    return root


@contextlib.contextmanager
def _directory(path: Path) -> Any:  # contextlib.chdir is new in Python 3.11
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as working directory."""
    monkeypatch.chdir(project)
    return project


@pytest.fixture(scope="module")
def tokenizer(project: Path) -> Tokenizer:
    return load_tokenizer(TokenizerConfig(path=str(project / "small.tiktoken"), pattern="gpt2"))


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_counting_run(tmp_path_factory.mktemp("counting"))


def drawn(*, masked_ids: tuple[int, ...] = (), **model: Any) -> TrainedModel:
    """A model with random weights."""
    config = TrainConfig.model_validate({"layout": "prepend", "model": {**TINY_MODEL, **model}, "steps": 1})
    decoder = Decoder(config.model, tokenizer=TOKENIZER, masked_ids=masked_ids)
    decoder.initialise(seed=1)
    return TrainedModel(
        name="drawn",
        model=decoder.requires_grad_(False),
        config=config,
        tokenizer=TOKENIZER,
        state=TrainingState(step=0),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def evaluated_model(output: Path, name: str) -> EvaluatedModel:
    trained = load_trained(output, name, device=torch.device("cpu"))
    return EvaluatedModel(trained=trained, layout=validation_layout(trained.config, output=output))


# Losses


def by_hand(trained: TrainedModel, prefix: list[int], text: list[int]) -> float:
    """The loss in float64, one row, token by token."""
    ids = torch.tensor([[*prefix, *text]])
    positions = torch.arange(ids.shape[1], dtype=torch.int32)[None]
    states = trained.model.hidden_states(ids, positions, None, dtype=torch.float64)[0]
    logits = states @ trained.model.output_weight.double().T
    logits[:, trained.model.impossible_ids] = -math.inf
    total = 0.0
    for i, token in enumerate(text):
        row = logits[len(prefix) - 1 + i]
        total += float(row.logsumexp(0) - row[token])
    return total


@pytest.mark.parametrize("tokens_at_once", [1, 64, 100_000])
@pytest.mark.parametrize("settings", [{}, {"qk_norm": True, "tie_embeddings": False, "init_std": 0.2}])
def test_the_loss_of_a_text_does_not_depend_on_its_batch(tokens_at_once: int, settings: dict[str, Any]) -> None:
    trained = drawn(masked_ids=(SPECIAL.pad, SPECIAL.boc), **settings)
    random = np.random.default_rng(0)
    texts = [random.integers(0, 60, n).astype(np.uint16) for n in (5, 1, 17, 40, 17, 2, 30)]
    prefixes = [
        [SPECIAL.bos],
        wrapped(None),
        wrapped(3),
        [SPECIAL.bos],
        wrapped(5),
        [SPECIAL.bos],
        wrapped(2),
    ]
    found = text_losses(trained, prefixes, texts, tokens_at_once=tokens_at_once)
    expected = [by_hand(trained, prefix, text.tolist()) for prefix, text in zip(prefixes, texts, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_loss_of_whole_documents_equals_validation_in_training(
    here: Path, tokenizer: Tokenizer, layout: str
) -> None:
    (line,) = [
        metrics
        for metrics in map(json.loads, (here / "out/training" / layout / "metrics.jsonl").read_text().splitlines())
        if "validation_text_loss" in metrics
    ]
    found = evaluate(
        [evaluated_model(here / "out", layout)],
        documents=RunDocuments(here / "out"),
        tokenizer=tokenizer,
        settings=EvaluationSettings(documents=10_000, conditions=condition_names([LAYOUTS[layout]])),
    )
    assert found.documents.num_tokens.max() < found.crop  # no document is cut
    assert found.documents.num_tokens.sum() == line["validation_text_tokens"]
    mean = found.measurements[0].nats.sum() / found.documents.num_tokens.sum()
    assert mean == pytest.approx(line["validation_text_loss"], rel=1e-6)


# Contexts


def segments_of(output: Path, layout: str) -> dict[tuple[str, int], tuple[list[int], list[int]]]:
    """The ids before each document's text in packed files, and those of the text, by partition and row."""
    found = {}
    for file in PackedDataset.open(output, layout).files:
        for row in range(len(file)):
            lengths, roles, documents = (values.tolist() for values in file.runs(row))
            ids, at = file.input_ids[row].tolist(), 0
            for length, role, document in zip(lengths, roles, documents, strict=True):
                prefix, text = found.setdefault((file.path.stem, document), ([], []))
                if role == Role.TEXT:
                    text.extend(ids[at : at + length])
                elif not text:
                    prefix.extend(ids[at : at + length])
                at += length
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_contexts_and_texts_equal_those_of_packed_rows(here: Path, tokenizer: Tokenizer, layout: str) -> None:
    output, packed = here / "out", segments_of(here / "out", layout)
    trained = trained_layout(output, layout)
    columns = list(trained.layout.fields) if trained.reads_metadata else []
    info = PackedDataset.open(output, layout).tokenizer
    documents = RunDocuments(output).crops(
        count=10_000, crop=300, seed=0, columns=columns, tokenizer=info, decode=tokenizer.decode
    )
    metadata = (
        trained.metadata(documents.columns, num_documents=len(documents), encoder=tokenizer)
        if columns
        else [None] * len(documents)
    )
    prefixes = trained.prefixes(LAYOUTS[layout], metadata, seed=0)  # type: ignore[arg-type]
    records = read_manifest(output).outputs["tokens"].records
    keys = [(r.partition, row) for r in records for row in range(r.rows) if packed.get((r.partition, row), ([], []))[1]]
    assert len(keys) == len(documents) > 150
    for key, prefix, text in zip(keys, prefixes, documents.text, strict=True):
        assert packed[key] == (prefix, text.tolist())
    if columns:
        lengths = {len(prefix) for prefix in prefixes}
        assert {3, 24 + 3} <= lengths  # documents without a URL, and with one that is cut


def test_a_derangement_moves_every_element() -> None:
    for size in (2, 3, 10, 501):
        moved = derangement(size, seed=size)
        assert sorted(moved) == list(range(size))
        assert not (moved == np.arange(size)).any()
    assert derangement(50, seed=0).tolist() == derangement(50, seed=0).tolist() != derangement(50, seed=1).tolist()
    with pytest.raises(ValueError, match="a derangement needs at least 2 elements, got 1"):
        derangement(1, seed=0)


def test_prefixes_under_each_condition() -> None:
    metadata = [np.array([51]), np.array([52]), np.array([], np.int64), None]
    prepend, meta = counting_layout("prepend"), counting_layout("meta_tokens")
    bos, empty = [SPECIAL.bos], wrapped(None)
    true = [wrapped(1), wrapped(2), empty, bos]
    assert prepend.prefixes("true", metadata, seed=0) == true
    assert prepend.prefixes("empty", metadata, seed=0) == [empty] * 4
    assert prepend.prefixes("none", metadata, seed=0) == [bos] * 4
    shuffled = prepend.prefixes("shuffled", metadata, seed=0)
    assert sorted(shuffled) == sorted(true)
    assert all(one != other for one, other in zip(shuffled, true, strict=True))
    assert meta.prefixes("meta_tokens", [None], seed=0) == [[SPECIAL.bos, SPECIAL.boc, 65, 66, 67, SPECIAL.eoc]]
    assert counting_layout("append").prefixes("true", metadata, seed=0) == [bos] * 4
    assert prepend.conditions == ("none", "empty", "true", "shuffled")
    assert counting_layout("plain").conditions == ("none",)


@pytest.mark.parametrize(("name", "beside"), [("plain", 1), ("prepend", 7), ("append", 7), ("meta_tokens", 6)])
def test_max_text_tokens_is_a_row_minus_the_longest_context(name: str, beside: int) -> None:
    assert counting_layout(name).max_text_tokens == 49 - beside


# Documents


def crops_of(output: Path, **changes: Any) -> Any:
    settings = {
        "count": 100,
        "crop": 8,
        "seed": 0,
        "columns": (),
        "tokenizer": TOKENIZER,
        "decode": CountingTokenizer().decode,
    }
    return RunDocuments(output).crops(**{"decode": CountingTokenizer().decode, **settings, **changes})


def test_documents_are_drawn_with_their_annotations(counting: Path) -> None:
    found = crops_of(counting, columns=["step", "parity", "rank"])
    assert len(found) == len(found.num_bytes) == 100
    assert set(found.num_tokens.tolist()) == set(range(4, 9))
    assert found.num_bytes.tolist() == (3 * found.num_tokens).tolist()
    parts = [read_table(counting / f"tokens/{i}.arrow").column("input_ids").to_pylist() for i in (0, 1)]
    whole = {tuple(ids[:8]) for part in parts for ids in part}
    for text, step, parity in zip(found.text, found.columns["step"], found.columns["parity"], strict=True):
        assert tuple(text.tolist()) in whole
        assert (int(text[1]) - int(text[0])) % 20 == step.as_py()
        assert parity.as_py() in (None, "odd" if step.as_py() % 2 else "even")
    assert any(r < 500 / 7 for r in found.columns["rank"].to_pylist())
    again = crops_of(counting, columns=["rank"])
    assert again.columns["rank"].to_pylist() == found.columns["rank"].to_pylist()
    other = crops_of(counting, columns=["rank"], seed=1)
    assert other.columns["rank"].to_pylist() != found.columns["rank"].to_pylist()


def test_all_documents_with_text_are_drawn_if_more_are_asked_for(counting: Path) -> None:
    assert len(crops_of(counting, count=996)) == len(crops_of(counting, count=5000)) == 996  # four have none
    assert len(crops_of(counting, count=1)) == 1


def test_a_crop_does_not_cut_a_character(here: Path, tokenizer: Tokenizer) -> None:
    info = PackedDataset.open(here / "out", "plain").tokenizer

    def cropped(crop: int) -> Any:
        documents = RunDocuments(here / "out")
        return documents.crops(count=999, crop=crop, seed=0, columns=(), tokenizer=info, decode=tokenizer.decode)

    whole, shorter = cropped(300), 0
    for crop in range(5, 40):
        found = cropped(crop)
        for text, size, everything in zip(found.text, found.num_bytes, whole.text, strict=True):
            assert text.tolist() == everything[: len(text)].tolist()
            assert len(text) > crop - 4 or len(text) == len(everything)
            shorter += len(text) < min(crop, len(everything))
            decoded = tokenizer.decode(text)
            assert "\ufffd" not in decoded
            assert size == len(decoded.encode())
    assert shorter > 100


def test_errors_of_documents_that_cannot_be_read(counting: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"no annotator has a column 'stp'; available: parity, rank, step$"):
        crops_of(counting, columns=["stp"])
    with pytest.raises(ShardError, match="a token file has id 19; the tokenizer has 19 ids"):
        crops_of(counting, tokenizer=TOKENIZER.model_copy(update={"num_ids": 19}))
    with pytest.raises(TrainerError, match="was tokenized with counting, not with the model's other"):
        RunDocuments(counting).check_tokenizer(TOKENIZER.model_copy(update={"name": "other", "sha256": "1" * 64}))
    with pytest.raises(ShardError, match="is not the output of a finished run"):
        RunDocuments(tmp_path)
    broken = write_counting_run(tmp_path / "broken", num_documents=20)
    (broken / "tokens/1.arrow").write_bytes(b"short")
    with pytest.raises(ShardError, match=r"1\.arrow has 5 bytes; its record states"):
        crops_of(broken)


# Groups and intervals


def test_groups_by_value() -> None:
    column = pa.array(["b", "a", None, "b", "c", "a", "b"])
    groups, left_out = groups_of(column)
    assert [(g.value, g.rows.tolist()) for g in groups] == [("b", [0, 3, 6]), ("a", [1, 5]), ("c", [4]), (None, [2])]
    assert left_out == []
    groups, left_out = groups_of(column, max_groups=2)
    assert [[g.value for g in some] for some in (groups, left_out)] == [["b", "a"], ["c", None]]
    groups, left_out = groups_of(column, max_groups=2, min_documents=3)
    assert [[g.value for g in some] for some in (groups, left_out)] == [["b"], ["a", "c", None]]


def test_numbers_are_in_ascending_order_and_labels_by_size() -> None:
    for values, expected in (
        (pa.array([10, 9, 9, 2, None, 2, 2], pa.int16()), ["2", "9", "10", None]),
        (pa.array(["b", "a", "a", None, None, None]), [None, "a", "b"]),
        (pa.array([0.5, 0.5, None]), ["0.5", None]),
    ):
        groups, _ = groups_of(values)
        assert [group.value for group in by_value(groups, values)] == expected


def test_scores_form_five_groups_in_ascending_order() -> None:
    values = np.random.default_rng(0).permutation(100) / 100
    groups, left_out = groups_of(pa.array([*values, None, math.nan], pa.float32()))
    assert [len(g.rows) for g in groups] == [2, 20, 20, 20, 20, 20]
    assert [g.value for g in groups[:3]] == [None, "0 to 0.198", "0.198 to 0.396"]
    assert left_out == []
    for low, high in pairwise(groups[1:]):
        assert values[low.rows].max() < values[high.rows].min()
    assert [(g.value, len(g.rows)) for g in groups_of(pa.array([0.5, 0.5]))[0]] == [("0.5", 2)]
    assert [(g.value, len(g.rows)) for g in groups_of(pa.nulls(3, pa.float32()))[0]] == [(None, 3)]


def test_intervals_of_ratios_and_their_differences() -> None:
    random = np.random.default_rng(1)
    tokens = random.integers(50, 500, 400)
    hard = random.normal(3, 0.5, 400)
    nats = np.stack([tokens * hard, tokens * (hard - 0.1 + random.normal(0, 0.05, 400))])
    draws = RatioDraws(nats, tokens[None], seed=0, num_resamples=2000)
    one = draws.ratio(0, 0)
    assert one.value == pytest.approx(nats[0].sum() / tokens.sum())
    assert one.low is not None
    assert one.high is not None
    # The delta method gives the standard error of a ratio of sums.
    spread = np.sqrt(((nats[0] - one.value * tokens) ** 2).sum()) / tokens.sum()
    assert one.high - one.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    difference = draws.difference(1, 0, 0)
    assert difference.value == pytest.approx(-0.1, abs=0.02)
    assert difference.low is not None
    assert difference.high is not None
    assert (
        difference.high - difference.low < (one.high - one.low) / 5
    )  # documents that are hard for both do not widen it
    same = draws.difference(0, 0, 0)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    again = RatioDraws(nats, tokens[None], seed=0, num_resamples=2000)
    assert again.ratio(0, 0) == one
    assert RatioDraws(nats, tokens[None], seed=1, num_resamples=2000).ratio(0, 0) != one


def test_intervals_contain_the_true_value_in_95_percent_of_samples() -> None:
    random, hits = np.random.default_rng(2), 0
    for i in range(200):
        tokens = random.integers(50, 500, 100)
        nats = tokens * random.normal(3, 0.5, 100)
        found = RatioDraws(nats[None], tokens[None], seed=i, num_resamples=300).ratio(0, 0)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 3 <= found.high
    assert 180 <= hits <= 199


def test_one_document_has_no_interval() -> None:
    found = RatioDraws(np.array([[6.0]]), np.array([[2.0]]), seed=0).ratio(0, 0)
    assert (found.value, found.low, found.high) == (3, None, None)


# All of it


@pytest.fixture(scope="module")
def evaluated(counting: Path) -> Evaluation:
    """The evaluation of a model that uses its metadata, beside a model without metadata."""
    train_counting(counting, "prepend", steps=200)
    train_counting(counting, "plain", steps=60)
    return evaluate(
        [evaluated_model(counting, name) for name in ("prepend", "plain")],
        documents=RunDocuments(counting),
        tokenizer=CountingTokenizer(),
        settings=EvaluationSettings(documents=200, crop=6, by=("parity",)),
    )


def test_true_metadata_lowers_the_loss_and_false_metadata_raises_it(evaluated: Evaluation) -> None:
    found = evaluated.as_dict("prepend")
    values = {name: entry["nats_per_token"]["value"] for name, entry in found["conditions"].items()}
    assert values["true"] < values["empty"] < values["shuffled"]
    differences = {(d["condition"], *d["against"].values()): d for d in found["differences"]}
    helps = differences["true", "prepend", "empty"]["nats_per_token"]
    assert helps["high"] < 0
    assert helps["value"] == pytest.approx(values["true"] - values["empty"])
    harms = differences["shuffled", "prepend", "true"]["bits_per_byte"]
    assert harms["low"] > 0
    beside = differences["true", "plain", "none"]["bits_per_byte"]
    other = evaluated.as_dict("plain")["conditions"]["none"]["bits_per_byte"]["value"]
    assert beside["value"] == pytest.approx(found["conditions"]["true"]["bits_per_byte"]["value"] - other)
    # By chance a fifth of the documents is given metadata equal to their own: there are five steps.
    assert 20 <= found["conditions"]["shuffled"]["documents_with_own_metadata"] <= 60


def test_the_result_of_a_model(evaluated: Evaluation, counting: Path) -> None:
    found = evaluated.as_dict("plain")
    assert json.loads(json.dumps(found)) == found
    assert (found["model"], found["step"], found["layout"]) == ("plain", 60, "plain")
    nats, tokens = evaluated.measurements[-1].nats.sum(), int(evaluated.documents.num_tokens.sum())
    documents = {"output": str(counting), "documents": 200, "crop": 6, "tokens": tokens, "bytes": 3 * tokens, "seed": 0}
    assert found["documents"] == documents
    none = found["conditions"]["none"]
    assert none["nats_per_token"]["value"] == pytest.approx(nats / tokens)
    assert none["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / (3 * tokens))
    assert [(d["condition"], d["against"]) for d in found["differences"]] == [
        ("none", {"model": "prepend", "condition": condition}) for condition in ("none", "empty", "true", "shuffled")
    ]
    groups = evaluated.as_dict("prepend")["by"]["parity"]["groups"]
    assert {group["value"] for group in groups} == {"even", "odd", None}
    assert sum(group["documents"] for group in groups) == 200
    assert sum(group["tokens"] for group in groups) == tokens
    weighted = sum(g["tokens"] * g["conditions"]["true"]["nats_per_token"]["value"] for g in groups)
    assert weighted / tokens == pytest.approx(
        evaluated.as_dict("prepend")["conditions"]["true"]["nats_per_token"]["value"]
    )
    assert len(groups[0]["differences"]) == 6


def test_the_texts_are_the_same_for_any_choice_of_models(evaluated: Evaluation, counting: Path) -> None:
    alone = evaluate(
        [evaluated_model(counting, "plain")],
        documents=RunDocuments(counting),
        tokenizer=CountingTokenizer(),
        settings=EvaluationSettings(documents=200, crop=6),
    )
    assert [text.tolist() for text in alone.documents.text] == [text.tolist() for text in evaluated.documents.text]
    np.testing.assert_allclose(alone.measurements[0].nats, evaluated.measurements[-1].nats, rtol=1e-6)
    first = {name: alone.as_dict("plain")[name] for name in ("conditions", "documents")}
    assert first == {name: evaluated.as_dict("plain")[name] for name in ("conditions", "documents")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": 43}, "crop 43: rows of 'prepend' have 48 tokens, at most 42 beside the longest context"),
        ({"conditions": ("true",)}, "plain: layout 'plain' has none of the conditions true; it has none"),
        ({"by": ("topic",)}, "no annotator has a column 'topic'; available: parity, rank, step"),
        ({"documents": 1}, "is drawn, and shuffled metadata needs two: --documents 2 or more, or --conditions without"),
    ],
)
def test_invalid_evaluations_are_refused(
    evaluated: Evaluation, counting: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((TrainerError, ShardError), match=message):
        evaluate(
            evaluated.models,
            documents=RunDocuments(counting),
            tokenizer=CountingTokenizer(),
            settings=EvaluationSettings(**settings),
        )


@pytest.mark.parametrize("names", [["plain"], ["prepend"], ["prepend", "plain"]])
def test_the_default_crop_is_the_same_for_any_choice_of_models(
    evaluated: Evaluation, counting: Path, names: list[str]
) -> None:
    lines: list[str] = []
    found = evaluate(
        [model for model in evaluated.models if model.name in names],
        documents=RunDocuments(counting),
        tokenizer=CountingTokenizer(),
        settings=EvaluationSettings(documents=10),
        report=lines.append,
    )
    room, layout = min((room, name) for name, room in max_text_tokens_by_layout(counting).items())
    assert found.crop == room == 42
    assert lines[0] == (
        f"scoring the first 42 tokens of each document: rows of layout {layout!r} hold no more beside the longest "
        "context (--crop sets another number)"
    )


def test_small_groups_are_counted_and_not_measured(evaluated: Evaluation) -> None:
    few = pa.array(["a"] * 190 + ["b"] * 5 + ["c"] * 4 + [None])
    documents = replace(evaluated.documents, columns={"few": few})
    settings = replace(evaluated.settings, by=("few",))
    found = replace(evaluated, documents=documents, settings=settings).as_dict("plain")["by"]["few"]
    assert [(group["value"], group["documents"]) for group in found["groups"]] == [("a", 190), ("b", 5)]
    assert (found["small_groups"], found["excluded_documents"]) == (2, 5)


# The command line


def test_evaluate_prints_tables_and_writes_results(here: Path) -> None:
    options = ["--name", "plain", "--name", "prepend-url", "--documents", "120", "--crop", "50"]
    note = "The models were trained on documents of this run"
    assert note not in colophon("evaluate", "recipe.toml", *options).out  # the default is the documents of validation
    options += ["--output", "out"]
    called = colophon(
        "evaluate", "recipe.toml", *options, "--by", "crawl_year", "--by", "url_host", "--by", "url_suffix"
    )
    assert (called.code, called.err) == (0, "")
    assert "120 documents, their first 50 tokens" in called.out
    for name in ("shuffled", "bits/byte by crawl_year", "bits/byte by url_host", "host0.example.org", "—", " ±0."):
        assert name in called.out
    assert note in called.out
    for line in ("against plain none", "By column: ± is half the width", "of fewer than 5 documents are not shown."):
        assert line in called.out
    asked = "beside=plain-by=crawl_year,url_host,url_suffix-crop=50-documents=120-output=out"
    path = Path(f"out/training/prepend-url/evaluation-{asked}.json")
    assert called.out.splitlines()[-2] == str(path)
    written = path.read_bytes()
    found = json.loads(written)
    assert list(found["conditions"]) == ["none", "empty", "true", "shuffled"]
    printed = colophon("evaluate", "recipe.toml", *options, "--json")
    assert json.loads(printed.out)[1] == {**found, "by": {}}
    assert path.read_bytes() == written  # the call with --json writes a different file


def test_the_result_of_evaluate_with_defaults_is_named_evaluation(here: Path) -> None:
    called = colophon("evaluate", "recipe.toml", "--name", "append-quality")
    assert (called.code, called.err) == (0, "")
    found = json.loads((here / "out/training/append-quality/evaluation.json").read_text())
    rooms = max_text_tokens_by_layout(here / "out")
    assert found["documents"]["crop"] == min(rooms.values()) < rooms["plain"]
    assert "hold no more beside the longest context" in called.out


def fit_bins_elsewhere(output: Path, edges: list[float]) -> None:
    """Change the manifest as if the run under `output` had fitted different edges."""
    path = output / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["outputs"]["annotations/crawl"]["settings"]["annotator"]["edges"] = edges
    path.write_text(json.dumps(manifest))


def test_metadata_with_different_bins_is_refused_and_groups_are_noted(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "same", tmp_path / "val")
    fit_bins_elsewhere(tmp_path / "val", [0.5])
    recipe = (here / "recipe.toml").read_text().replace('"{url}"', '"{crawl_year}"')
    recipe = recipe.replace('validation_output = "same"\n', "")
    assert '"{crawl_year}"' in recipe
    (tmp_path / "recipe.toml").write_text(recipe)
    place = ["--set", f"output.path={tmp_path / 'out'}", "--set", "input.paths=['data/part-0.parquet']"]
    assert run(*place, recipe=str(tmp_path / "recipe.toml")).code == 0
    settings = ["--set", "train.prepend-url.validation_rows=2", "--set", "train.prepend-url.steps=1", *place]
    trained = colophon("train", str(tmp_path / "recipe.toml"), "--name", "prepend-url", *settings)
    assert trained.code == 0, trained.err
    fit_bins_elsewhere(tmp_path / "out", [0.25])
    asked = ["--name", "prepend-url", "--documents", "20", "--output", str(tmp_path / "val"), *place]
    refused = colophon("evaluate", str(tmp_path / "recipe.toml"), *asked)
    assert refused.code == 2
    assert "annotator 'crawl' of " in refused.line
    assert "edges [0.25] in training, [0.5] here" in refused.line
    assert refused.line.endswith("; or --conditions none,empty")
    assert "edges [0.25] in training" in colophon("attention", str(tmp_path / "recipe.toml"), *asked).line
    asked += ["--conditions", "none,empty", "--by", "crawl_year"]
    done = colophon("evaluate", str(tmp_path / "recipe.toml"), *asked)
    assert done.code == 0, done.err
    (line,) = [line for line in done.out.splitlines() if "its groups are not those of the training" in line]
    (found,) = json.loads(colophon("evaluate", str(tmp_path / "recipe.toml"), *asked, "--json").out)
    assert found["notes"] == [line]


def test_evaluate_on_another_runs_documents(here: Path) -> None:
    assert run("--set", "output.path=elsewhere", "--set", "input.paths=['data/part-2.parquet']").code == 0
    options = ["--name", "plain", "--output", "elsewhere", "--crop", "9", "--conditions", "none", "--json"]
    called = colophon("evaluate", "recipe.toml", *options)
    assert (called.code, called.err) == (0, "")
    (found,) = json.loads(called.out)
    assert found["documents"]["output"] == "elsewhere"
    assert found["documents"]["documents"] <= 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "plane"], "no such training run; available: append-quality, meta-tokens, plain, prepend-url"),
        (["--name", "plain", "--step", "9"], "no checkpoint of step 9; available: 2"),
        (
            ["--name", "plain", "--conditions", "tru"],
            "unknown condition 'tru'; available: none, empty, true, shuffled,",
        ),
        (
            ["--name", "plain", "--by", "topic"],
            "no annotator has a column 'topic'; available: crawl_slice, ",
        ),
        (["--name", "plain", "--output", "nowhere"], "nowhere is not the output of a finished run"),
        (["--name", "plain", "--crop", "400"], "crop 400: rows of 'plain' have 300 tokens, at most 300"),
        (
            ["--name", "plain", "--set", "tokenizer.pattern=cl100k_base"],
            "[tokenizer] is not the vocabulary that plain was",
        ),
    ],
)
def test_errors_of_evaluate_are_one_line(here: Path, options: list[str], message: str) -> None:
    called = colophon("evaluate", "recipe.toml", *options)
    assert called.code == 2
    assert message in called.line


def cut_tokens(here: Path, length: int) -> int:
    layout = trained_layout(here / "out", "prepend-url").layout
    tokenizer = load_tokenizer(TokenizerConfig(path=str(here / "small.tiktoken"), pattern="gpt2"))
    return len(tokenizer.backend.encode(f"https://example.org/{'p' * length}")) - layout.max_metadata_tokens


def test_the_error_before_any_training_names_the_command(here: Path) -> None:
    called = colophon("evaluate", "recipe.toml", "--set", "output.path=same", "--name", "plain")
    assert (
        called.line
        == "same/training/plain: no such training run; no model has been trained yet: run `colophon train` first"
    )


def test_generate_continues_the_prompt(here: Path) -> None:
    options = ["--name", "prepend-url", "--prompt", "the größe", "--max-tokens", "20", "--temperature", "2"]
    metadata = ["--meta", "url=https://a.org/ü"]
    called = colophon("generate", "recipe.toml", *options, *metadata)
    assert (called.code, called.err) == (0, "")
    assert called.out.startswith("the größe")
    assert len(called.out) > len("the größe") + 10
    assert colophon("generate", "recipe.toml", *options, *metadata).out == called.out
    assert colophon("generate", "recipe.toml", *options, *metadata, "--guidance", "1").out == called.out
    assert colophon("generate", "recipe.toml", *options, *metadata, "--seed", "1").out != called.out
    cut = colophon("generate", "recipe.toml", *options, "--meta", f"url=https://example.org/{'p' * 300}")
    assert cut.line == f"the last {cut_tokens(here, 300)} tokens of the metadata are cut, as in packing: " + (
        "max_metadata_tokens of 'prepend-url'"
    )
    several = colophon("generate", "recipe.toml", *options, *metadata, "--num-samples", "3")
    assert several.out.startswith(f"--- sample 0\n{called.out}--- sample 1\nthe größe")
    free = colophon("generate", "recipe.toml", *options, *metadata, "--guidance", "0")
    assert free.out == colophon("generate", "recipe.toml", *options, "--condition", "empty").out
    assert colophon("generate", "recipe.toml", "--name", "meta-tokens", "--top-k", "3", "--top-p", "0.5").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "prepend-url", "--meta", "urls=a"], "no metadata field 'urls' before a text; available: url"),
        (["--name", "prepend-url", "--meta", "url"], "--meta url: write field=value"),
        (["--name", "prepend-url", "--meta", "url=a", "--meta", "url=b"], "--meta url=b: url is 'a' already"),
        (["--name", "plain", "--meta", "url=a"], "no metadata field 'url' before a text; available: none"),
        (["--name", "plain", "--condition", "empty"], "has no context 'empty'; available: none"),
        (["--name", "plain", "--condition", "full"], "unknown condition 'full'; available: none, empty, meta, meta_t"),
        (["--name", "plain", "--guidance", "2"], "guidance goes from the empty wrapper to a context"),
        (["--name", "plain", "--max-tokens", "500"], "which leaves 299 to generate"),
        (["--name", "plain", "--top-p", "2"], "top_p must be above 0 and at most 1, got 2.0"),
        (
            ["--name", "plain", "--set", "tokenizer.pattern=cl100k_base"],
            "[tokenizer] is not the vocabulary that plain was",
        ),
    ],
)
def test_errors_of_generate_are_one_line(here: Path, options: list[str], message: str) -> None:
    called = colophon("generate", "recipe.toml", "--prompt", "the", *options)
    assert (called.code, called.out) == (2, "")
    assert message in called.line
