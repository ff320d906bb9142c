from __future__ import annotations

from pathlib import Path

import pytest

from colophon.trainer.errors import TrainerError
from colophon.trainer.loop import train
from tests.trainer.courses import metrics_of
from tests.trainer.runs import config


def test_an_existing_run_is_not_overwritten_unasked(run_output: Path) -> None:
    train(config(steps=1), name="a", output=run_output)
    before = (run_output / "training" / "a" / "metrics.jsonl").read_text()
    with pytest.raises(TrainerError, match="exists: --resume continues it, --overwrite deletes it"):
        train(config(steps=2), name="a", output=run_output)
    with pytest.raises(TrainerError, match="not both"):
        train(config(steps=2), name="a", output=run_output, resume=True, overwrite=True)
    assert (run_output / "training" / "a" / "metrics.jsonl").read_text() == before
    train(config(steps=2), name="a", output=run_output, overwrite=True)
    assert [m["step"] for m in metrics_of(run_output, "a")] == [1, 2, 2]
