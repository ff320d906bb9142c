"""The checkpoints that a run saves: copied to the host between two updates, written while the training continues."""

from __future__ import annotations

from functools import partial

from colophon.trainer.checkpoints.checkpoint import Checkpoint, TrainingState, save_checkpoint, step_of
from colophon.trainer.checkpoints.writer import CheckpointWriter
from colophon.trainer.monitoring.metrics import MetricsLog
from colophon.trainer.run import Run


class Saver:
    """Saves the checkpoints of a run; a context manager, see `CheckpointWriter`."""

    def __init__(self, run: Run, *, saved_step: int, metrics: MetricsLog) -> None:
        """`saved_step` is the step of the checkpoint that the run has loaded, 0 where it has none; `metrics` is on disk
        before a checkpoint is."""
        self._run, self._saved_step, self._metrics = run, saved_step, metrics
        self._writer = CheckpointWriter(
            written=lambda path: run.report(f"step {step_of(path)}/{run.steps}  saved {path}"), report=run.report
        )

    def __enter__(self) -> Saver:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._writer.__exit__(kind, *rest)

    def check(self) -> None:
        """Raise the error of the checkpoint under way if it has failed; does not wait."""
        self._writer.check()

    def save(self, state: TrainingState) -> None:
        """Copy a checkpoint to the host and start to write it, after the metrics up to it are on disk, and after the
        checkpoint before it."""
        run = self._run
        self._metrics.sync()
        self._writer.wait()  # its copy is freed before the next one is made
        writes = run.world.is_first  # all processes contribute their shares
        weights, optimizer = run.model.weights(keep=writes), run.optimizer.tensors(keep=writes)
        if writes:
            write = partial(
                save_checkpoint,
                run.directory.checkpoints,
                Checkpoint(state=state, weights=weights, optimizer=optimizer),
                data=run.data.description(state.step),
                shared=run.shared(state.step),
                keep=run.config.keep_checkpoints,
            )
            self._writer.start(write)
        self._saved_step = state.step

    def finish(self, state: TrainingState) -> None:
        """Save the last state, unless it is saved or the run keeps no checkpoints, and wait until it is on disk."""
        if state.step != self._saved_step and self._run.config.checkpoint_every:
            self.save(state)
        self._writer.wait()
