"""Links and pipes in a training run's files: every read and write refuses them, and nothing is written elsewhere."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from colophon.shards.common.output_paths import OutputPathError
from colophon.shards.reader import PackedDataset
from colophon.trainer.checkpoints.run_directory import RunDirectory
from colophon.trainer.inference.trained_model import load_trained
from colophon.trainer.loop import train
from colophon.trainer.monitoring.metrics import MetricsLog
from colophon.trainer.monitoring.trackers import TensorBoard
from colophon.trainer.parallel import World
from colophon.trainer.plots.curves import read_curve, read_curves
from tests.links import MESSAGE, ODD, replace, untouched
from tests.trainer.runs import config

CHECKPOINT = "training/a/checkpoints/step-00000001"
READ = ("training", "training/a", "training/a/config.json", "training/a/checkpoints", CHECKPOINT)
READ_IN_CHECKPOINT = (f"{CHECKPOINT}/state.json", f"{CHECKPOINT}/model.safetensors")
RESUMED = (*READ, *READ_IN_CHECKPOINT, f"{CHECKPOINT}/optimizer.safetensors", "training/a/metrics.jsonl")


@pytest.fixture(scope="module")
def trained(packed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run with one training, of one step."""
    output = tmp_path_factory.mktemp("links") / "out"
    shutil.copytree(packed_run, output, ignore=shutil.ignore_patterns("training"))
    train(config("plain", steps=1), name="a", output=output)
    return output


@contextmanager
def replaced(path: Path, kind: str, elsewhere: Path) -> Iterator[None]:
    """Something odd in the place of a file or directory until the end of the block; fails if anything else changes."""
    kept = elsewhere.with_name("kept")
    path.rename(kept)
    with untouched(elsewhere):
        replace(path, kind, elsewhere)
        yield
        path.unlink()
    kept.rename(path)


def refused(place: str) -> str:
    return rf"/{re.escape(place)}: {MESSAGE}"


@pytest.mark.parametrize("kind", ["a link to a directory", "a link to a file", "a pipe"])
def test_a_training_is_not_resumed_from_them(trained: Path, tmp_path: Path, kind: str) -> None:
    for place in RESUMED:
        with replaced(trained / place, kind, tmp_path / "elsewhere"):
            with pytest.raises(OutputPathError, match=refused(place)):
                train(config("plain", steps=2), name="a", output=trained, resume=True)
            if place in (*READ, *READ_IN_CHECKPOINT):
                with pytest.raises(OutputPathError, match=refused(place)):
                    load_trained(trained, "a")
    assert load_trained(trained, "a").state.step == 1


def test_a_link_is_not_overwritten(trained: Path, tmp_path: Path) -> None:
    with (
        replaced(trained / "training/a", "a link to a directory", tmp_path / "elsewhere"),
        pytest.raises(OutputPathError, match=refused("training/a")),
    ):
        train(config("plain", steps=1), name="a", output=trained, overwrite=True)


def test_overwriting_removes_links_and_not_their_targets(tmp_path: Path) -> None:
    directory = tmp_path / "out/training/b"
    with untouched(tmp_path / "elsewhere"):
        for place in ("checkpoints/step-00000001", "metrics.jsonl", "wandb"):
            replace(directory / place, "a link to a directory", tmp_path / "elsewhere")
        RunDirectory(tmp_path / "out", "b", world=World(device=torch.device("cpu"))).prepare(
            steps=1, resume=False, overwrite=True
        )
        assert not directory.exists()


@pytest.mark.parametrize("kind", ODD)
def test_metrics_and_curves(trained: Path, tmp_path: Path, kind: str) -> None:
    path = trained / "training/a/metrics.jsonl"
    with replaced(path, kind, tmp_path / "elsewhere"):
        for call in (
            lambda: MetricsLog(path, resumed_at=1),
            lambda: read_curve(trained, "a"),
            lambda: read_curves(trained, None),
        ):
            with pytest.raises(OutputPathError, match=refused("training/a/metrics.jsonl")):
                call()


def test_a_hard_link_to_metrics_keeps_its_content(tmp_path: Path) -> None:
    path, other = tmp_path / "a/metrics.jsonl", tmp_path / "other"
    path.parent.mkdir()
    other.write_text('{"step": 1, "loss": 2.5}\n')
    path.hardlink_to(other)
    with MetricsLog(path, resumed_at=1) as log:
        log.write({"step": 2, "loss": 2.25})
    assert len(path.read_text().splitlines()) == 2
    assert len(other.read_text().splitlines()) == 1


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with untouched(tmp_path / "elsewhere"):
        replace(tmp_path / "tensorboard", "a link to a directory", tmp_path / "elsewhere")
        with pytest.raises(OutputPathError, match=refused("tensorboard")):
            TensorBoard(tmp_path, resumed_at=0)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("place", ["manifest.json", "packed", "packed/plain", "packed/plain/0.arrow"])
def test_packed_files(trained: Path, tmp_path: Path, place: str, kind: str) -> None:
    with (
        replaced(trained / place, kind, tmp_path / "elsewhere"),
        pytest.raises(OutputPathError, match=refused(place)),
    ):
        PackedDataset.open(trained, "plain")
