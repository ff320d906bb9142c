from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from colophon.pipeline.reports.evaluation_tables import legend, print_evaluation


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def losses(value: float, *, seen: bool = True) -> dict[str, Any]:
    return {"nats_per_token": estimate(2 * value), "bits_per_byte": estimate(value), "seen_in_training": seen}


def difference(kind: str, condition: str, model: str, base: str, value: float) -> dict[str, Any]:
    against = {"model": model, "condition": base}
    return {"kind": kind, "condition": condition, "against": against, "bits_per_byte": estimate(value)}


def evaluation(model: str, conditions: dict[str, dict[str, Any]], *differences: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": model,
        "layout": model,
        "documents": {"documents": 9, "origin": "held_out", "output": "out", "crop": 8, "tokens": 72, "bytes": 300},
        "resamples": 1000,
        "conditions": conditions,
        "differences": list(differences),
        "metadata": None,
        "by": {},
    }


URL = evaluation(
    "url",
    {
        "true": losses(0.75),
        "empty": losses(1.25),
        "none": losses(1.5, seen=False),
        "shuffled": losses(2.0),
    },
    difference("models", "true", "plain", "none", -0.25),
    difference("models", "true", "other", "none", -9.0),
    difference("context", "true", "url", "empty", -0.5),
    difference("control", "shuffled", "url", "true", 1.25),
    difference("other", "shuffled", "url", "empty", 0.75),
)
PLAIN = evaluation("plain", {"none": losses(1.0)}, difference("models", "none", "url", "true", 0.25))


def printed(*evaluations: dict[str, Any]) -> list[str]:
    output = io.StringIO()
    print_evaluation(evaluations, console=Console(file=output, width=200))
    return [line.rstrip() for line in output.getvalue().splitlines() if line.strip()]


def test_the_difference_from_the_model_without_metadata_is_first_and_the_control_last() -> None:
    for order in ((PLAIN, URL), (URL, PLAIN)):
        lines = printed(*order)
        assert lines[0].startswith("9 documents held out of the training; their first 8 tokens: 72 tokens")
        assert lines[1].startswith("Differences in bits/byte")
        models, context, control = (line.split() for line in lines[3:6])
        assert models[:4] + models[4:5] == ["url", "true", "plain", "none", "-0.2500"]
        assert context[:5] == ["url", "true", "url", "empty", "-0.5000"]
        assert control[:6] == ["control:", "url", "shuffled", "url", "true", "+1.2500"]
        assert lines[6].strip() == "Losses"


def test_a_context_that_was_not_seen_and_the_control_are_marked() -> None:
    lines = printed(PLAIN, URL)
    assert [line.split()[2] for line in lines if line.startswith("url ") and " url " in line[4:]][-4:-1] == [
        "true",
        "empty",
        "none*",
    ]
    assert any("shuffled (control)" in line for line in lines)
    lines = list(legend([PLAIN, URL]))
    assert "not on the seed of the training" in lines[0]
    assert lines[1].startswith("*: the model has read no such context in training")
    assert not any(line.startswith("*") for line in legend([PLAIN]))


def test_metadata_is_beside_its_baselines() -> None:
    names = ("accuracy", "without_text", "most_frequent", "over_without_text", "over_most_frequent")
    metadata = {name: estimate(value) for name, value in zip(names, (0.6, 0.2, 0.25, 0.4, 0.35), strict=True)}
    append = {**evaluation("append", {"none": losses(1.0)}), "metadata": None}
    append["metadata"] = {"documents": 8, "most_frequent_value": "Software", **metadata}
    lines = printed(append)
    start = next(i for i, line in enumerate(lines) if "metadata predicted as a whole, of 8 documents" in line)
    assert "60.0 % [59.0, 61.0]" in lines[start + 2]
    assert "20.0 % [19.0, 21.0]" in lines[start + 3]
    assert "+40.0 %" in lines[start + 3]
    assert lines[start + 4].startswith("most frequent: Software")
    assert "+35.0 %" in lines[start + 4]
