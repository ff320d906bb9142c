"""A trained model, loaded from `<output>/training/<name>/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from colophon.shards.common.errors import did_you_mean, one_line
from colophon.shards.common.output_paths import entries, inside
from colophon.shards.common.state_files import read_state
from colophon.shards.schema import TokenizerInfo
from colophon.shards.stores.places import RunPlace
from colophon.trainer.checkpoints.checkpoint import MODEL_NAME, TrainingState, checkpoints, read_trained, step_of
from colophon.trainer.checkpoints.run_directory import run_directory
from colophon.trainer.checkpoints.tensor_checks import check_masked_ids, check_weights
from colophon.trainer.config import TrainConfig, with_current_keys
from colophon.trainer.data.description import HeldOutDocuments
from colophon.trainer.errors import TrainerError
from colophon.trainer.inference.contexts import TrainedLayout, trained_layouts
from colophon.trainer.model.decoder import Decoder, row_positions

_REMEDY = "Train the model again"


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model, with the settings and the state of its training."""

    name: str
    """The training run's."""
    model: Decoder
    """On its device, without gradients."""
    config: TrainConfig
    tokenizer: TokenizerInfo
    """The shards': ids, not strings."""
    state: TrainingState
    device: torch.device
    dtype: torch.dtype
    """The type of activations and matrix products."""
    layouts: Mapping[str, TrainedLayout] = field(default_factory=dict)
    """The layouts that it was trained on by name, as its checkpoint describes them; that of validation first."""
    held_out: Sequence[HeldOutDocuments] = ()
    """Documents of the run that it never read."""

    @property
    def layout(self) -> TrainedLayout:
        """The layout that it was validated on."""
        return self.layouts[self.config.layout]

    @torch.no_grad()
    def hidden_states(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Last states [b, L, hidden_size] of rows that are one segment each, int64 [b, L], on the model's device."""
        return self.model.hidden_states(input_ids, row_positions(input_ids), None, dtype=self.dtype)

    def logits(self, input_ids: torch.Tensor) -> torch.Tensor:
        """float32 [b, L, vocabulary_size] of rows that are one segment each, int64 [b, L], on the model's device."""
        with torch.no_grad():
            return self.model.logits(self.hidden_states(input_ids))


def load_trained(
    output: Path,
    name: str,
    *,
    run: RunPlace | None = None,
    step: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> TrainedModel:
    """Load a checkpoint of the training run `name` under `output`.

    Args:
        output: the local directory with `training/`.
        name: the training run's.
        run: the `output.path` of the recipe; None: `output`.
        step: the checkpoint's; None: the newest.
        device: None: CUDA where it is available, else the CPU.
        dtype: the type of activations and matrix products.

    Raises:
        TrainerError: the run or checkpoint does not exist (the choices are listed), or is damaged.
    """
    directory = _existing(output, name)
    path = _checkpoint(directory, step)
    described = trained_run(output, name)
    config, masked_ids = described.config, described.masked_ids
    saved = read_trained(path)
    check_weights(saved.weights, config.model, saved.data.tokenizer, where=path / MODEL_NAME)
    check_masked_ids(masked_ids, saved.data.tokenizer, where=directory / "config.json", remedy=_REMEDY)
    model = Decoder(config.model, tokenizer=saved.data.tokenizer, masked_ids=masked_ids)
    model.load_weights(saved.weights)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return TrainedModel(
        name=name,
        model=model.to(where).requires_grad_(False).eval(),
        config=config,
        tokenizer=saved.data.tokenizer,
        state=saved.state,
        device=where,
        dtype=dtype,
        layouts=trained_layouts(saved.data, training=name, output=output if run is None else run),
        held_out=saved.data.held_out,
    )


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """The content of a training's `config.json`."""

    config: TrainConfig
    masked_ids: list[int]
    shared: dict[str, Any]
    """The values that a resumed run must share, when the file was written."""


def trained_run(output: Path, name: str) -> TrainedRun:
    """The settings of the training `name` under `output`.

    Raises:
        TrainerError: the training does not exist (the choices are listed), or its `config.json` cannot be read.
    """
    directory = _existing(output, name)
    described = read_state(inside(directory, "config.json"), remedy=_REMEDY) or {}
    try:
        return TrainedRun(
            config=TrainConfig.model_validate(with_current_keys(described["config"])),
            masked_ids=[int(id) for id in described["masked_ids"]],
            shared=dict(described.get("shared") or {}),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = "damaged" if isinstance(error, KeyError | TypeError | AttributeError) else one_line(error)
        raise TrainerError(f"{directory / 'config.json'}: cannot be read: {reason}. {_REMEDY}") from None


def _existing(output: Path, name: str) -> Path:
    """The directory of the training `name`, a single part of a path: neither `.` nor `tiny/checkpoints` is one."""
    directory = run_directory(output, name)
    if directory.is_dir() and Path(name).parts == (name,):
        return directory
    known = sorted(path.name for path in entries(output, "training") if path.is_dir())
    choices = f"available: {', '.join(known)}" if known else "no model has been trained yet: run `colophon train` first"
    raise TrainerError(f"{directory}: no such training run; {choices}{did_you_mean(name, known)}")


def _checkpoint(directory: Path, step: int | None) -> Path:
    found = {step_of(path): path for path in checkpoints(inside(directory, "checkpoints", is_directory=True))}
    if not found:
        raise TrainerError(f"{directory}: no checkpoint has been written yet")
    if step is None:
        return found[max(found)]
    if step not in found:
        raise TrainerError(f"{directory}: no checkpoint of step {step}; available: {', '.join(map(str, found))}")
    return found[step]


def untrained(trained: TrainedModel) -> TrainedModel:
    """The same model before its first training step: weights drawn by the training's seed."""
    model = Decoder(trained.model.config, tokenizer=trained.tokenizer)
    model.initialise(seed=trained.config.seed)
    model = model.to(trained.device).requires_grad_(False).eval()
    return replace(trained, model=model, state=TrainingState(step=0))
