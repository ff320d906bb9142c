"""A validation of a run: the losses of its held-out rows."""

from __future__ import annotations

from colophon.shards.schema import Role
from colophon.trainer.monitoring.metrics import MetricsLog, validation_line, validation_record
from colophon.trainer.run import Run
from colophon.trainer.step import validation_losses


def validate(run: Run, *, step: int, metrics: MetricsLog) -> float | None:
    """Compute and log the losses of all validation rows after update `step`; returns that of text, None without any."""
    batches = run.data.validation_batches(rank=run.world.rank, world_size=run.world.size)
    totals = validation_losses(run.model, batches, arithmetic=run.arithmetic)
    loss = totals.mean(Role.TEXT)
    if loss is not None:
        record = validation_record(totals, step=step, with_metadata=run.has_metadata, groups=run.groups)
        metrics.write(record)
        run.report(validation_line(record, steps=run.steps))
    return loss
