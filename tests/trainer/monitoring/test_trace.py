"""`trace`: the documents of an update, from the order alone."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from colophon.shards.schema import Role
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.errors import TrainerError
from colophon.trainer.loop import train
from colophon.trainer.monitoring.update_trace import UpdateTrace, trace_update
from tests.trainer.annotated import NUM_DOCUMENTS, annotate, text_tokens
from tests.trainer.courses import Killed, kill_at, metrics_of
from tests.trainer.data.rows.mixtures import rows_of, sampled_rows
from tests.trainer.ranks import train_on_ranks
from tests.trainer.runs import config, write_run

STEPS = 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trainings of six steps with checkpoints after 2, 4 and 6: by rows, and by documents."""
    output = write_run(tmp_path_factory.mktemp("traced"))
    annotate(output, url=[f"https://example.org/{i}" for i in range(NUM_DOCUMENTS)])
    for order in ("rows", "documents"):
        settings = config("prepend", order=order, steps=STEPS, checkpoint_every=2, keep_checkpoints=9, log_every=1)
        train(settings, name=order, output=output)
    return output


def number_of(url: object) -> int:
    return int(str(url).rpartition("/")[2])


def losses_of(output: Path, name: str) -> list[tuple[int, float]]:
    """Text tokens so far and text loss of each update."""
    return [(one["text_tokens"], one["text_loss"]) for one in metrics_of(output, name) if "loss" in one]


def tokens_of(trace: UpdateTrace) -> Counter[int]:
    return Counter({number_of(one.annotations["url"]): one.text_tokens for one in trace.documents})


@pytest.mark.parametrize("order", ["rows", "documents"])
def test_the_losses_of_the_documents_are_that_of_the_update(trained: Path, order: str) -> None:
    by_step = {record["step"]: record for record in metrics_of(trained, order) if "loss" in record}
    for step in (3, 5):
        trace = trace_update(trained, order, step, device="cpu")
        assert trace.checkpoint == step - 1
        assert trace.text_loss == pytest.approx(by_step[step]["text_loss"], rel=1e-6)
        assert trace.text_tokens == by_step[step]["text_tokens"] - by_step[step - 1]["text_tokens"]
        losses = [one.text_loss for one in trace.documents if one.text_loss is not None]
        assert losses == sorted(losses, reverse=True)
        assert len(losses) == len(trace.documents)


def test_the_documents_are_those_of_the_rows(trained: Path) -> None:
    data = TrainingData(config("prepend", steps=STEPS), output=trained)
    in_rows, known = text_tokens(data.dataset), {"prepend": rows_of(trained, "prepend")}
    for step in (1, 6):
        (samples,) = sampled_rows(data, range(step, step + 1), known)
        expected = sum((Counter(dict(enumerate(in_rows[row].tolist()))) for _, row in samples), Counter[int]())
        assert tokens_of(trace_update(trained, "rows", step, with_losses=False)) == +expected


def test_places_are_those_of_the_annotations(trained: Path) -> None:
    trace = trace_update(trained, "documents", 2, with_losses=False)
    assert trace.checkpoint is None
    for one in trace.documents:
        assert number_of(one.annotations["url"]) == int(one.partition) * NUM_DOCUMENTS // 2 + one.row
        assert (one.layout, one.id, one.text_loss) == ("prepend", None, None)


def test_losses_are_those_of_the_newest_checkpoint_before_the_update_or_the_oldest_after_it(
    trained: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(trained, tmp_path / "run")
    checkpoints = output / "training" / "rows" / "checkpoints"
    shutil.rmtree(checkpoints / "step-00000002")
    assert [trace_update(output, "rows", step, device="cpu").checkpoint for step in (1, 5, 6)] == [4, 4, 4]
    shutil.rmtree(checkpoints)
    trace = trace_update(output, "rows", 6)
    assert (trace.checkpoint, trace.text_loss) == (None, None)


def test_a_trace_is_the_same_after_a_kill_and_a_resume_and_for_two_processes(trained: Path, tmp_path: Path) -> None:
    output = shutil.copytree(trained, tmp_path / "run")
    settings = config("prepend", order="documents", steps=STEPS, checkpoint_every=2, log_every=1)
    with pytest.raises(Killed):
        train(settings, name="resumed", output=output, report=kill_at(3))
    train(settings, name="resumed", output=output, resume=True)
    train_on_ranks(settings, num_ranks=2, name="ranks", output=output)
    for name in ("resumed", "ranks"):
        for mine, other in zip(losses_of(output, name), losses_of(output, "documents"), strict=True):
            assert mine == pytest.approx(other, rel=1e-5)
        for step in (1, STEPS):
            expected = trace_update(output, "documents", step, with_losses=False)
            assert trace_update(output, name, step, with_losses=False) == expected
    data = TrainingData(settings, output=output)
    of_ranks = sum(int((data.batch(1, rank=r, world_size=2).label_roles == Role.TEXT).sum()) for r in range(2))
    assert of_ranks == trace_update(output, "ranks", 1, with_losses=False).text_tokens


def test_a_step_and_a_training_must_exist(trained: Path) -> None:
    with pytest.raises(TrainerError, match="rows: no step 7; it has steps 1 to 6"):
        trace_update(trained, "rows", 7)
    with pytest.raises(TrainerError, match="no such training run; available: documents, rows"):
        trace_update(trained, "row", 1)


def test_other_shards_than_those_of_the_training_are_refused(trained: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", seed=9)
    shutil.copytree(trained / "training", other / "training")
    for name in ("rows", "documents"):
        with pytest.raises(TrainerError, match=f"the data has changed since {name} was trained: "):
            trace_update(other, name, 1)
