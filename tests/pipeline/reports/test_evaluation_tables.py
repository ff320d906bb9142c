from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from colophon.pipeline.reports.evaluation_tables import difference_titles, print_evaluation


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def losses(value: float) -> dict[str, Any]:
    return {"nats_per_token": estimate(2 * value), "bits_per_byte": estimate(value)}


def evaluation(model: str, bits: dict[str, float], *, others: dict[tuple[str, str], float]) -> dict[str, Any]:
    """The result of a model with `bits` by condition, beside `others` by model and condition."""
    known = {**{(model, condition): value for condition, value in bits.items()}, **others}
    return {
        "model": model,
        "layout": model,
        "documents": {"documents": 9, "crop": 8, "tokens": 72, "bytes": 300},
        "resamples": 1000,
        "conditions": {condition: losses(value) for condition, value in bits.items()},
        "differences": [
            {"condition": condition, "against": {"model": base, "condition": of}, **losses(value - known[base, of])}
            for condition, value in bits.items()
            for base, of in known
            if (base, of) != (model, condition)
        ],
        "by": {},
    }


def test_differences_are_against_the_own_first_condition_and_the_first_row() -> None:
    plain = evaluation("plain", {"none": 1.0}, others={("url", "none"): 1.5, ("url", "true"): 0.75})
    url = evaluation("url", {"none": 1.5, "true": 0.75}, others={("plain", "none"): 1.0})
    output = io.StringIO()
    print_evaluation([plain, url], console=Console(file=output, width=200))
    heading, first, second, third = output.getvalue().splitlines()[2:6]
    assert "Δ against own none" in heading
    assert "Δ against plain none" in heading
    assert first.split()[-2:] == ["—", "—"]
    assert "—" in second
    assert second.endswith("+0.5000 [+0.4900, +0.5100]")
    assert third.endswith("-0.7500 [-0.7600, -0.7400]  -0.2500 [-0.2600, -0.2400]")


@pytest.mark.parametrize(("conditions", "title"), [(("none", "none"), "own none"), (("none", "empty"), "own first")])
def test_the_title_names_the_first_condition_if_all_models_have_it(conditions: tuple[str, str], title: str) -> None:
    results = [evaluation(f"m{i}", {condition: 1.0}, others={}) for i, condition in enumerate(conditions)]
    assert difference_titles(results) == (f"Δ against {title}", "Δ against m0 none")
