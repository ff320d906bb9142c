from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from colophon.trainer.errors import TrainerError
from colophon.trainer.loop import train
from tests.trainer.courses import Killed, kill_at, metrics_of
from tests.trainer.runs import config

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard", "ignore::DeprecationWarning:google")


def curves(directory: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return {name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]}


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_has_the_curves_of_metrics_jsonl(run_output: Path) -> None:
    settings = config("append", tensorboard=True, validation_every=4, checkpoint_every=3, log_every=1)
    with pytest.raises(Killed):
        train(settings, name="a", output=run_output, report=kill_at(5))
    train(settings, name="a", output=run_output, resume=True)
    found, lines = curves(run_output / "training" / "a"), metrics_of(run_output, "a")
    for name in ("loss", "metadata_loss", "lr", "validation_text_loss"):
        expected = {line["step"]: line[name] for line in lines if name in line}
        assert len(expected) > 1
        assert found[name] == pytest.approx(expected, rel=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_weights_and_biases_offline(run_output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(config(wandb_project="colophon", steps=2), name="a", output=run_output)
    directory = run_output / "training" / "a"
    assert list((directory / "wandb").glob("offline-run-*/*.wandb"))
    assert (directory / "wandb-id").read_text()


@pytest.mark.parametrize(
    ("settings", "package"), [({"tensorboard": True}, "tensorboard"), ({"wandb_project": "p"}, "wandb")]
)
def test_a_package_that_is_missing_is_named(
    run_output: Path, settings: dict[str, object], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    train(config(steps=1), name="a", output=run_output)
    with pytest.raises(TrainerError, match=rf"{package} is not installed: pip install 'colophon\[{package}\]'"):
        train(config(**settings), name="a", output=run_output, overwrite=True)
    assert (run_output / "training/a/metrics.jsonl").exists()  # the check comes before the removal
