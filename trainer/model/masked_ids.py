"""Special ids that get no probability in training (`mask_zero_weight_ids`)."""

from __future__ import annotations

from colophon.shards.reader import PackedDataset
from colophon.shards.schema import Role
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.training_data import TrainingData


def masked_ids(config: TrainConfig, data: TrainingData) -> list[int]:
    """The ids that a run masks: those of `zero_weight_ids` if the settings ask for it, else none."""
    return zero_weight_ids(data) if config.mask_zero_weight_ids else []


def zero_weight_ids(data: PackedDataset | TrainingData) -> list[int]:
    """Special ids that never have loss weight as a label, in a layout or in any layout of a run."""
    special, weights = data.tokenizer.special, data.role_weights
    ids_by_role = {
        Role.BOS: [special.bos],
        Role.EOS: [special.eos],
        Role.PAD: [special.pad],
        Role.WRAPPER: [special.boc, special.eoc],
        Role.META_TOKEN: special.meta,
    }
    return [id for role, ids in ids_by_role.items() if not weights[role] for id in ids]
