"""The examples for other trainers: each is short, runs, and trains on what `colophon train` trains on."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from colophon.trainer.data.training_data import TrainingData
from tests.trainer.runs import config

EXAMPLES = Path(__file__).parents[3] / "examples" / "trainers"
STEPS = 3

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries


def example(name: str, *, needs: str = "torch") -> Any:
    """The names of an example; the test is skipped without its library."""
    pytest.importorskip(needs, reason=f"needs {needs}")
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_the_examples_are_short() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert len(lengths) == 7
    assert max(lengths.values()) < 60, lengths


def test_a_plain_loop(packed_run: Path) -> None:
    losses = example("plain_loop")["train"](str(packed_run), "append", steps=12)
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def first_loss(run: Path, layout: str) -> float:
    """The loss of the bundled trainer's first batch under the model with which all examples start."""
    from transformers import LlamaConfig, LlamaForCausalLM

    data = TrainingData(config(layout, batch_size=4, steps=STEPS), output=run)
    batch = data.batch(1)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=data.tokenizer.num_ids, **sizes))
    total, weights = torch.tensor(0.0), batch.loss_weights
    for row in range(len(batch)):  # each document by itself
        for segment in batch.input_segments[row].unique():
            own = batch.input_segments[row] == segment
            logits = model(input_ids=batch.input_ids[row][own][None]).logits[0]
            total += (cross_entropy(logits, batch.labels[row][own], reduction="none") * weights[row][own]).sum()
    return float(total / weights.sum())


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("with_transformers", "transformers"),
        ("with_accelerate", "accelerate"),
        ("with_lightning", "pytorch_lightning"),
    ],
)
def test_a_library_has_the_loss_of_each_document_by_itself(packed_run: Path, name: str, needs: str) -> None:
    losses = example(name, needs=needs)["train"](str(packed_run), "prepend", steps=STEPS)
    assert len(losses) == STEPS
    assert losses[0] == pytest.approx(first_loss(packed_run, "prepend"), abs=2e-5)


def test_grain(packed_run: Path) -> None:
    batches = iter(example("with_grain", needs="grain")["batches"](str(packed_run), "prepend"))
    first, state, second = next(batches), batches.get_state(), next(batches)
    assert {name: values.shape for name, values in first.items()}["input_ids"] == (4, 48)
    batches.set_state(state)
    assert np.array_equal(next(batches)["input_ids"], second["input_ids"])
