"""Settings of a training run, as they appear under `[train.<name>]` of a recipe. Imports no torch.

Defaults are those of the paper's model (arXiv 2511.21613), or of the group's public script where the paper gives none.
"""

from colophon.trainer.config.data import (
    CurriculumConfig,
    GoldfishConfig,
    PhaseConfig,
    RowWeightsConfig,
    SourceConfig,
)
from colophon.trainer.config.model import MODEL_PRESETS, ModelConfig
from colophon.trainer.config.optimizer import AdamWConfig, AdEMAMixConfig, MuonConfig, OptimizerConfig
from colophon.trainer.config.schedule import CosineSchedule, ScheduleConfig, WsdSchedule
from colophon.trainer.config.training import CompileScope, TrainConfig, with_current_keys

__all__ = [
    "MODEL_PRESETS",
    "AdEMAMixConfig",
    "AdamWConfig",
    "CompileScope",
    "CosineSchedule",
    "CurriculumConfig",
    "GoldfishConfig",
    "ModelConfig",
    "MuonConfig",
    "OptimizerConfig",
    "PhaseConfig",
    "RowWeightsConfig",
    "ScheduleConfig",
    "SourceConfig",
    "TrainConfig",
    "WsdSchedule",
    "with_current_keys",
]
