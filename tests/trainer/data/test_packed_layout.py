from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colophon.shards.common.errors import ShardError
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.errors import TrainerError
from tests.trainer import runs
from tests.trainer.runs import config, write_run


def test_incompatible_layouts_are_refused(run_output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mix(other: Path) -> None:
        sources = [{"layout": "prepend"}, {"layout": "plain", "output": str(other)}]
        TrainingData(config(sources=sources), output=run_output)

    short = write_run(tmp_path / "short", sequence_length=32)
    with pytest.raises(TrainerError) as raised:
        mix(short)
    assert str(raised.value) == (
        f"layouts 'prepend' of {run_output} and 'plain' of {short} cannot be trained on together: "
        "they differ in sequence_length, 48 and 32"
    )
    monkeypatch.setattr(runs, "TOKENIZER", runs.TOKENIZER.model_copy(update={"sha256": "1" * 64}))
    with pytest.raises(TrainerError, match=r"'prepend' of .* and 'plain' of .* they differ in tokenizer$"):
        mix(write_run(tmp_path / "retokenized"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"layout": "prepended"},
            "has no layout 'prepended'; available: append, masked, meta_tokens, plain, prepend",
        ),
        ({"layout": "plain", "output": "nowhere"}, "nowhere is not the output of a finished run"),
    ],
)
def test_missing_sources_are_refused(packed_run: Path, source: dict[str, Any], message: str) -> None:
    with pytest.raises(ShardError, match=message):
        TrainingData(config(sources=[{"layout": "prepend"}, source]), output=packed_run)
