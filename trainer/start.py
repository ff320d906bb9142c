"""The start of a run: its directory, the checkpoint that it resumes from, its description, its micro-batch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from colophon.trainer.checkpoints.checkpoint import (
    MODEL_NAME,
    OPTIMIZER_NAME,
    TrainingState,
    load_checkpoint,
    step_of,
)
from colophon.trainer.checkpoints.tensor_checks import check_weights
from colophon.trainer.device.micro_batch import rows_at_once
from colophon.trainer.model.attention import activate_flash_attention_3
from colophon.trainer.run import Run
from colophon.trainer.step import accumulate_gradients


def start(run: Run, *, resume: bool, overwrite: bool) -> TrainingState:
    """Load the newest checkpoint, if there is one, write the run's settings and describe it; returns its state."""
    path, state = run.directory.prepare(steps=run.steps, resume=resume, overwrite=overwrite), TrainingState(step=0)
    if path is not None:
        with run.world.together():
            state = _load(run, path)
        run.report(f"resumed after step {state.step} from {path}")
    elif resume:
        run.report(f"no checkpoint to resume from: {run.directory.checkpoints}; the run begins with step 1")
    changes = run.directory.write_config(
        run.settings, resumed=state.step > 0, description=_description(run, step=state.step)
    )
    for line in (*(f"changed since the checkpoint: {change}" for change in changes), *_summary(run)):
        run.report(line)
    return state


def _load(run: Run, path: Path) -> TrainingState:
    """Set weights and optimizer to those of a checkpoint, of which this process reads its part."""
    model, checkpoint = run.model, load_checkpoint(path, shared=run.shared(step_of(path)))
    where = path / MODEL_NAME
    check_weights(checkpoint.weights, run.config.model, run.data.tokenizer, where=where, part=model.own_part)
    model.load_weights(checkpoint.weights)
    run.optimizer.load_tensors(checkpoint.optimizer, where=path / OPTIMIZER_NAME)
    return checkpoint.state


def _description(run: Run, *, step: int) -> dict[str, Any]:
    """The part of `config.json` that is not settings."""
    return {
        "layouts": [one.model_dump(mode="json") for one in run.data.description(step).layouts],
        "sequence_length": run.data.sequence_length,
        "num_parameters": run.model.decoder.num_parameters,
        "steps": run.steps,
        "masked_ids": run.masked_ids,
        "torch": str(torch.__version__),
        "shared": run.shared(step),
    }


def _summary(run: Run) -> Iterator[str]:
    """Human-readable lines on the model, the data and the device."""
    data, world = run.data, run.world
    processes = f" x {world.size}" if world.size > 1 else ""
    yield (
        f"{run.model.decoder.num_parameters:,} parameters on {world.device}{processes}, "
        f"{data.num_rows:,} rows of {data.sequence_length} tokens, {len(data.validation_rows):,} validation rows"
    )
    if run.config.text_tokens is not None:
        yield f"{run.config.text_tokens:,} text tokens: {run.steps:,} steps"
    yield from data.summary()
    if run.arithmetic.attention == "varlen":
        reason = activate_flash_attention_3(world.device)
        yield f"FlashAttention {'3' if reason is None else f'2: {reason}'}"


def choose_micro_batch(run: Run, *, step: int) -> int:
    """The number of rows at once after update `step`; searched if the settings do not have it."""
    return rows_at_once(
        run.config,
        world=run.world,
        sequence_length=run.data.sequence_length,
        file=run.directory.micro_batch,
        attempt=partial(attempt, run, step),
        report=run.report,
    )


def attempt(run: Run, step: int, num_rows: int) -> None:
    """Compute the gradient of `num_rows` rows of the batch after update `step`, with room left for the optimizer's
    state, and drop it."""
    state_bytes = 0 if step else run.optimizer.num_state_bytes()
    reserved = torch.empty(state_bytes, dtype=torch.uint8, device=run.world.device)
    part = next(run.data.batch(step + 1).split(num_rows))
    try:
        accumulate_gradients(run.model, part, micro_batch_size=num_rows, arithmetic=run.arithmetic)
        if reserved.is_cuda:
            torch.cuda.synchronize()
    finally:
        run.optimizer.zero_grad()
        del reserved
        gc.collect()
        if run.world.device.type == "cuda":
            torch.cuda.empty_cache()
