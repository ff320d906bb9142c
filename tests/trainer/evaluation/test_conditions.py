from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from colophon.shards.arrow_files import read_table
from colophon.shards.common.errors import ShardError
from colophon.shards.layouts import parse_layout
from colophon.shards.tokenizer.tokenizer import Tokenizer
from colophon.trainer.checkpoints.checkpoint import TrainingState
from colophon.trainer.config import TrainConfig
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.conditions import evaluate
from colophon.trainer.evaluation.document_crops import RunDocuments
from colophon.trainer.evaluation.held_out import held_out_documents
from colophon.trainer.evaluation.results import Evaluation
from colophon.trainer.evaluation.settings import EvaluatedModel, EvaluationSettings
from colophon.trainer.inference.contexts import TrainedLayout, condition_names, max_text_tokens_by_layout
from colophon.trainer.inference.trained_model import TrainedModel
from colophon.trainer.model.decoder import Decoder
from tests.trainer.counting import CountingTokenizer, train_counting
from tests.trainer.evaluation.small_project import LAYOUTS, evaluated_model
from tests.trainer.runs import SPECIAL, TINY_MODEL, TOKENIZER


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
    sizes = {"documents": 200, "crop": 6, "tokens": tokens, "bytes": 3 * tokens, "seed": 0}
    assert found["documents"] == {"output": str(counting), "origin": "trained_on", **sizes}
    none = found["conditions"]["none"]
    assert none["nats_per_token"]["value"] == pytest.approx(nats / tokens)
    assert none["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / (3 * tokens))
    assert [(d["condition"], d["against"]) for d in found["differences"]] == [
        ("none", {"model": "prepend", "condition": condition}) for condition in ("true", "empty", "shuffled")
    ]
    groups = evaluated.as_dict("prepend")["by"]["parity"]["groups"]
    assert {group["value"] for group in groups} == {"even", "odd", None}
    assert sum(group["documents"] for group in groups) == 200
    assert sum(group["tokens"] for group in groups) == tokens
    weighted = sum(g["tokens"] * g["conditions"]["true"]["nats_per_token"]["value"] for g in groups)
    assert weighted / tokens == pytest.approx(
        evaluated.as_dict("prepend")["conditions"]["true"]["nats_per_token"]["value"]
    )
    assert [(d["kind"], d["condition"], d["against"]["condition"]) for d in groups[0]["differences"]] == [
        ("context", "true", "empty"),
        ("control", "shuffled", "true"),
        ("other", "shuffled", "empty"),
    ]


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


def test_the_difference_from_the_other_model_leads_and_none_is_taken_from_an_unseen_context(
    evaluated: Evaluation,
) -> None:
    found = evaluated.as_dict("prepend")
    first = found["differences"][0]
    assert (first["kind"], first["condition"], first["against"]) == (
        "models",
        "true",
        {"model": "plain", "condition": "none"},
    )
    assert {name: losses["seen_in_training"] for name, losses in found["conditions"].items()} == {
        "true": True,
        "empty": True,  # a fifth of the metadata is dropped
        "none": False,
        "shuffled": True,
    }
    unseen = {"model": "prepend", "condition": "none"}
    assert not [d for d in found["differences"] if d["condition"] == "none" or d["against"] == unseen]


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"position": "plain"}, {"none"}),
        ({"position": "prepend", "template": "{url}", "dropout": 0.0}, {"true"}),
        ({"position": "prepend", "template": "{url}"}, {"true", "empty"}),
        ({"position": "prepend", "template": "{url}", "when_dropped": "nothing"}, {"true", "none"}),
        ({"position": "prepend", "template": "{url}", "segments": "first"}, {"true", "empty", "none"}),
        ({"position": "append", "template": "{url}"}, {"true", "none"}),
        ({"position": "meta_tokens"}, {"meta_tokens"}),
        ({"position": "meta_tokens", "dropout": 0.1}, {"meta_tokens", "empty"}),
    ],
)
def test_the_contexts_that_rows_of_a_layout_have(settings: dict[str, Any], seen: set[str]) -> None:
    layout = TrainedLayout(name="a", layout=parse_layout(settings, where="a"), sequence_length=300, special=SPECIAL)
    assert layout.seen_conditions == seen


def test_the_documents_that_all_models_held_out_are_measured(evaluated: Evaluation, counting: Path) -> None:
    documents = held_out_documents(evaluated.models)
    both = [
        {(part.partition, row) for part in model.trained.held_out for row in part.documents}
        for model in evaluated.models
    ]
    lines: list[str] = []
    found = evaluate(
        evaluated.models,
        documents=documents,
        tokenizer=CountingTokenizer(),
        settings=EvaluationSettings(documents=10_000, crop=6),
        report=lines.append,
    )
    assert found.origin == "held_out"
    few = f"{len(found.documents)} documents with text were held out by every model, fewer than --documents 10,000: "
    assert [line for line in lines if line.startswith(few)]
    assert 5 < len(found.documents) <= len(both[0] & both[1])
    lists = {path.stem: read_table(path).column("input_ids").to_pylist() for path in counting.glob("tokens/*.arrow")}
    expected = [lists[partition][row][:6] for partition, row in sorted(both[0] & both[1]) if lists[partition][row]]
    assert [text.tolist() for text in found.documents.text] == expected


def test_documents_that_changed_or_are_not_common_are_refused(evaluated: Evaluation, counting: Path) -> None:
    model = evaluated.models[0]
    changed = [part.model_copy(update={"tokens_sha256": "1" * 64}) for part in model.trained.held_out]
    with pytest.raises(TrainerError, match=r"have changed since prepend was trained, .* tokens of 0: 1{12} -> 0{12}\."):
        held_out_documents([EvaluatedModel(trained=replace(model.trained, held_out=changed))])
    none = EvaluatedModel(trained=replace(model.trained, held_out=[]))
    with pytest.raises(
        TrainerError, match=r"no document that every model held out of its training \(prepend: \d+, pre"
    ):
        held_out_documents([model, none])


def test_metadata_after_the_text_is_counted_by_document_beside_its_baselines(counting: Path) -> None:
    train_counting(counting, "append", steps=250)
    found = evaluate(
        [evaluated_model(counting, "append")],
        documents=RunDocuments(counting),
        tokenizer=CountingTokenizer(),
        settings=EvaluationSettings(documents=300, crop=20),
    ).as_dict("append")["metadata"]
    assert found["documents"] == 300
    assert found["accuracy"]["value"] > 0.8  # the text gives the step
    assert found["most_frequent"]["value"] < 0.35  # of five steps
    assert found["without_text"]["value"] <= found["most_frequent"]["value"]
    gain = found["accuracy"]["value"] - found["most_frequent"]["value"]
    assert found["over_most_frequent"]["value"] == pytest.approx(gain)
    assert found["over_most_frequent"]["low"] > 0
