"""Plans of trainings: their numbers are those of the trainings, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colophon.shards.common.errors import ShardError
from colophon.shards.schema import Role
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.loop import train
from colophon.trainer.training_plan import TrainingPlan, plan_training
from tests.trainer.courses import metrics_of, weights_of
from tests.trainer.data.documents.numbered import write_numbered
from tests.trainer.runs import SEQUENCE_LENGTH, config


def planned(settings: TrainConfig, output: Path, *, name: str = "planned") -> TrainingPlan:
    return plan_training(settings, name=name, output=output, directory=output)


PHASES = [{"from_fraction": 0.5, "layout": "plain"}]
MIXED = [{"layout": "prepend", "weight": 3}, {"layout": "plain", "weight": 1}]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose layouts have the same documents."""
    lengths = np.random.default_rng(3).integers(0, 60, (2, 40)).tolist()
    return write_numbered(tmp_path_factory.mktemp("numbered"), lengths, methods=["concat"])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("rows", {"text_tokens": 2000, "phases": PHASES}),
        ("mixed", {"steps": 5, "layout": "prepend", "sources": MIXED, "optimizer": "muon"}),
    ],
)
def test_the_numbers_are_those_of_the_training(packed_run: Path, name: str, settings: dict[str, Any]) -> None:
    run, name = config(**{"steps": None, "validation_rows": 6, **settings}), f"planned-{name}"
    plan = planned(run, packed_run, name=name)
    assert (plan.exists, plan.checkpoint) == (False, None)
    result = train(run, name=name, output=packed_run)
    last = [record for record in metrics_of(packed_run, name) if "loss" in record][-1]
    assert (plan.steps, plan.tokens, plan.text_tokens) == (last["step"], last["tokens"], last["text_tokens"])
    assert (plan.num_parameters, plan.micro_batch_size) == (result.num_parameters, 4)
    moments = weights_of(packed_run, name).items()
    num_bytes = sum(tensor.nbytes for part, tensor in moments if part.endswith(("exp_avg", "exp_avg_sq", "buffer")))
    assert plan.state_bytes == 2 * 4 * plan.num_parameters + num_bytes
    again = planned(run, packed_run, name=name)
    assert (again.exists, again.checkpoint) == (True, plan.steps)


def test_the_numbers_by_documents_are_those_of_the_updates(numbered: Path) -> None:
    phases = [{"from_step": 4, "layout": "prepend-concat"}]
    run = config("plain-concat", order="documents", batch_size=40, steps=6, phases=phases)
    plan, data = planned(run, numbered), TrainingData(run, output=numbered)
    roles = [data.batch(step).label_roles for step in range(1, 7)]
    assert plan.text_tokens == sum(int((one == Role.TEXT).sum()) for one in roles)
    assert plan.tokens == pytest.approx(sum(int((one != Role.PAD).sum()) for one in roles), rel=0.01)
    assert plan.layouts == ("plain-concat", "prepend-concat")


def test_epochs_are_of_rows_or_of_text(packed_run: Path, numbered: Path) -> None:
    plan = planned(config(steps=30, validation_rows=6), packed_run)
    assert plan.epochs == 30 * 8 / plan.training_rows
    assert planned(config(phases=PHASES), packed_run).epochs is None
    run = config("plain-concat", order="documents", validation_rows=0, steps=30)
    whole = TrainingData(run, output=numbered).dataset
    num_text = int((whole.rows(range(len(whole))).roles == Role.TEXT).sum())
    assert planned(run, numbered).epochs == 30 * 8 * whole.sequence_length / num_text


def test_runs_with_the_same_text_in_every_update_have_the_same_pairing(numbered: Path) -> None:
    def pairing(layout: str = "plain", **settings: Any) -> str | None:
        return planned(config(f"{layout}-concat", **{"order": "documents", **settings}), numbered).pairing

    plain = pairing()
    assert plain is not None
    assert plain == pairing("prepend") == pairing("append", steps=3, learning_rate=1e-2)
    assert len({plain, pairing(seed=1), pairing(batch_size=4), pairing(validation_rows=9), pairing(order="rows")}) == 5
    assert pairing(order="rows") is None


def test_a_plan_writes_nothing_and_finds_the_errors_of_a_training(packed_run: Path, tmp_path: Path) -> None:
    settings = config("plain", micro_batch_size=None, micro_batch_tokens=5 * SEQUENCE_LENGTH)
    plan = plan_training(settings, name="new", output=packed_run, directory=tmp_path / "elsewhere")
    assert (plan.micro_batch_size, plan.micro_batch_is_searched) == (4, True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ShardError, match="'missing'"):
        planned(config("missing"), packed_run)
