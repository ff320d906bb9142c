"""Settings of a training run, as they stand under `[train.<name>]` of a recipe. Imports no torch.

Defaults are those of the paper's width (arXiv 2511.21613; the group's public script where the paper is silent).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_serializer, field_validator, model_validator

from colophon.trainer.data.config import CurriculumConfig, PhaseConfig, SourceConfig, check_weights, with_curriculum

MODEL_PRESETS: dict[str, dict[str, Any]] = {
    "1m": {"num_layers": 4, "hidden_size": 128, "ffn_size": 384, "num_heads": 4, "num_kv_heads": 2},
    "10m": {"num_layers": 6, "hidden_size": 384, "ffn_size": 1024, "num_heads": 6, "num_kv_heads": 2},
    "124m": {"num_layers": 12, "hidden_size": 768, "ffn_size": 2048, "num_heads": 12, "num_kv_heads": 12},
    "350m": {"num_layers": 24, "hidden_size": 1024, "ffn_size": 2816, "num_heads": 16, "num_kv_heads": 16},
    "1.5b": {
        "num_layers": 16,
        "hidden_size": 2048,
        "ffn_size": 8192,
        "num_heads": 32,
        "num_kv_heads": 8,
        "init_std": 0.008944,
        "tie_embeddings": False,
    },
}
"""Sizes by name. `1m` and `10m` count without embeddings, `124m` and `350m` with GPT-2's vocabulary, `1.5b` (the
paper's model) with Mistral-Nemo's."""

PAPER_WARMUP_STEPS = 2000


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Frozen):
    """A Llama decoder. In a recipe a preset's name, or a table whose `preset` gives what it leaves out."""

    num_layers: int = Field(ge=1)
    hidden_size: int = Field(ge=1)
    ffn_size: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    num_kv_heads: int = Field(ge=1)
    rope_base: float = Field(500_000.0, gt=1)
    norm_eps: float = Field(1e-5, gt=0)
    init_std: float = Field(0.02, gt=0)
    """Spread of the initial weights; those that write into the residual stream have it divided by sqrt(2 layers)."""
    tie_embeddings: bool = True
    """Whether the output layer is the embedding."""
    qk_norm: bool = False
    """Whether queries and keys are normalised a head, before they are turned."""
    vocabulary_multiple: int = Field(64, ge=1)
    """The embedding has rows for the next multiple of this; the ids beyond the tokenizer's get no probability."""

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, value: Any) -> Any:
        table = {"preset": value} if isinstance(value, str) else value
        if not isinstance(table, dict) or "preset" not in table:
            return table
        preset = table["preset"]
        if preset not in MODEL_PRESETS:
            raise ValueError(f"unknown model preset {preset!r}; available: {', '.join(MODEL_PRESETS)}")
        return {**MODEL_PRESETS[preset], **{key: entry for key, entry in table.items() if key != "preset"}}

    @model_validator(mode="after")
    def _heads_fit(self) -> ModelConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.head_size % 2:
            raise ValueError(f"hidden_size / num_heads is {self.head_size}; RoPE turns pairs, so it must be even")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        return self

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads


class _Optimizer(_Frozen):
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    """Of matrices; norms and meta tokens are left alone."""
    independent_weight_decay: bool = False
    """False: a step takes rate x decay x weight off. True: (rate / highest rate) x decay x weight, so that the decay
    does not move with the highest rate (arXiv 2510.19093); sensible values are then smaller by that rate."""
    max_grad_norm: float | None = Field(1.0, gt=0)
    """None, or `inf`: no clipping."""

    @field_validator("max_grad_norm")
    @classmethod
    def _infinite_is_none(cls, value: float | None) -> float | None:
        return None if value == math.inf else value

    @field_serializer("max_grad_norm", when_used="json")
    def _none_is_infinite(self, value: float | None) -> float | str:
        return "inf" if value is None else value  # as a recipe says it; JSON has no number for it

    @model_validator(mode="after")
    def _independent_decay_is_named(self) -> _Optimizer:
        if self.independent_weight_decay and "weight_decay" not in self.model_fields_set:
            raise ValueError(
                "independent_weight_decay takes weight_decay off the weights at every step at the highest rate: give "
                f"weight_decay; the rate times the usual {self.weight_decay} is a start, 3e-5 for a rate of 3e-4"
            )
        return self


class AdamWConfig(_Optimizer):
    """AdamW (arXiv 1711.05101)."""

    type: Literal["adamw"] = "adamw"


class AdEMAMixConfig(_Optimizer):
    """AdEMAMix (arXiv 2409.03137): AdamW with a second, slow average of the gradients."""

    type: Literal["ademamix"]
    beta2: float = Field(0.999, ge=0, lt=1)
    beta3: float = Field(0.999, ge=0, lt=1)
    """Of the slow average; reached over the warm-up."""
    alpha: float = Field(8.0, ge=0)
    """Weight of the slow average; reached over the warm-up."""
    warmup_steps: int | None = Field(None, ge=1)
    """Of beta3 and alpha. None: all steps of the run."""


class MuonConfig(_Optimizer):
    """Muon for the layers' matrices, with AdamW's update size (arXiv 2502.16982); AdamW for the embedding, the output
    layer and norms. One learning rate serves both."""

    type: Literal["muon"]
    momentum: float = Field(0.95, ge=0, lt=1)
    newton_schulz_steps: int = Field(5, ge=1, le=20)


OptimizerConfig = Annotated[AdamWConfig | AdEMAMixConfig | MuonConfig, Field(discriminator="type")]


class _Schedule(_Frozen):
    warmup_steps: int | None = Field(None, ge=0)
    """Steps of linear warm-up. None: the paper's 2,000, but at most a tenth of all steps."""
    min_lr_ratio: float = Field(0.1, ge=0, le=1)
    """What the learning rate falls to, just after the last step, as a share of the highest."""

    def warmup(self, steps: int) -> int:
        """Warm-up steps of a run of `steps` steps."""
        return min(PAPER_WARMUP_STEPS, steps // 10) if self.warmup_steps is None else self.warmup_steps

    def decay_steps(self, steps: int) -> int:
        """Steps over which the rate falls at the end of a run of `steps` steps."""
        return steps - self.warmup(steps)


class CosineSchedule(_Schedule):
    """Warm-up, then half a cosine down to the lowest rate."""

    type: Literal["cosine"] = "cosine"


class WsdSchedule(_Schedule):
    """Warm-up, a stable phase, then decay over the last `decay_fraction` of all steps."""

    type: Literal["wsd"]
    decay_fraction: float = Field(0.2, ge=0, le=1)
    decay: Literal["1-sqrt", "linear"] = "1-sqrt"
    min_lr_ratio: float = Field(0.0, ge=0, le=1)

    def decay_steps(self, steps: int) -> int:
        """Steps over which the rate falls at the end of a run of `steps` steps."""
        return round(self.decay_fraction * steps)


ScheduleConfig = Annotated[CosineSchedule | WsdSchedule, Field(discriminator="type")]


class GoldfishConfig(_Frozen):
    """The goldfish loss (arXiv 2406.10209): one in `k` text labels is not paid, chosen by a hash of the `h` labels
    before it, so that a passage is not learnt by heart however often it comes. Text within one segment only."""

    k: int = Field(50, ge=2)
    h: int = Field(50, ge=1)


class TrainConfig(_Frozen):
    """One training run: which packed layouts, which model, how long, how it is validated and kept."""

    layout: str
    """Name of a packed layout of the run. With `sources` the one of them that is validated on; the first if left
    out."""
    sources: tuple[SourceConfig, ...] = ()
    """Several layouts to mix, instead of `layout`."""
    phases: tuple[PhaseConfig, ...] = ()
    """Other data from some step on; the later ones start later."""
    curriculum: CurriculumConfig | None = None
    """Of all sources without one of their own; phases have theirs."""
    model: ModelConfig
    steps: int = Field(ge=1)
    batch_size: int = Field(504, ge=1)
    """Sequences an update, over all devices."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Sequences that one device works on at once. None: the largest divisor of `batch_size` up to 8."""
    learning_rate: float = Field(3e-4, gt=0, allow_inf_nan=False)
    """The highest; `schedule` tells the way there and down."""
    optimizer: OptimizerConfig = AdamWConfig()
    schedule: ScheduleConfig = CosineSchedule()
    seed: int = Field(0, ge=0)
    """Of the initial weights, of the order of the data and of what is held out."""
    document_masking: bool = True
    """Tokens attend within their own segment only, and positions restart there. False: plain causal attention over the
    whole sequence, as in the paper's code; document k then reads the metadata of document k - 1."""
    validation_output: str | None = None
    """Output directory of another run whose layout of the same name is validated on. None: rows are held out."""
    validation_rows: int | None = Field(None, ge=0)
    """Rows to validate on; 0: none. None: all rows of `validation_output`, or else a hundredth of the layout's rows
    (at most 256) held out of training. Two layouts see the same documents only with all rows of `validation_output`."""
    validation_every: int = Field(250, ge=1)
    """Steps between validations; there is one after the last step as well."""
    checkpoint_every: int = Field(1000, ge=0)
    """Steps between checkpoints; there is one after the last step as well. 0: none at all, so nothing to resume."""
    keep_checkpoints: int = Field(2, ge=1)
    log_every: int = Field(10, ge=1)
    """Steps between console lines; `metrics.jsonl` has every step."""
    tensorboard: bool = False
    """Whether metrics also go to event files under the run's `tensorboard/`."""
    wandb_project: str | None = None
    """The project of Weights & Biases that metrics also go to."""
    mask_unpaid_ids: bool = False
    """Whether special ids that the layout never pays for (wrapper, meta tokens, bos, padding) get no probability, so
    that all layouts predict over one vocabulary."""
    goldfish: GoldfishConfig | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations and matrix products; weights, optimizer and loss stay float32. auto: bfloat16 on CUDA, float32 on
    CPU."""
    attention: Literal["auto", "varlen", "flex", "sdpa"] = "auto"
    """How documents are masked. auto: varlen (flash attention) on CUDA in bfloat16, flex on CUDA in float32, sdpa with
    a dense mask on CPU."""
    compile: bool | None = None
    """Whether layers and loss are compiled. None: on CUDA."""
    activation_checkpointing: bool = False
    """Whether a layer's activations are computed again in the backward pass instead of kept: less memory, about a
    third more time."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """What several processes of one run (torchrun) share. ddp: the batch. fsdp: the batch, weights and optimizer. auto:
    fsdp where weights, gradients and AdamW's moments take more than a quarter of the device's memory, else ddp."""

    @field_validator("schedule", "optimizer", mode="before")
    @classmethod
    def _default_type(cls, value: Any, info: ValidationInfo) -> Any:
        """A table without a type has the default's; a name alone stands for a table of its defaults."""
        default = {"schedule": "cosine", "optimizer": "adamw"}[info.field_name or ""]
        if isinstance(value, str):
            return {"type": value}
        return {"type": default, **value} if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _validated_layout(cls, value: Any) -> Any:
        """`layout` where only `sources` are given: the first one's."""
        sources = value.get("sources") if isinstance(value, dict) else None
        if not isinstance(sources, (list, tuple)) or not sources or "layout" in value:
            return value
        first = sources[0]
        layout = first.get("layout") if isinstance(first, dict) else getattr(first, "layout", None)
        return value if layout is None else {**value, "layout": layout}

    @model_validator(mode="after")
    def _sources_and_phases_fit(self) -> TrainConfig:
        check_weights(self.sources)
        layouts = [source.layout for source in self.mixed]
        if self.layout not in layouts:
            raise ValueError(f"layout {self.layout!r} is none of the sources'; available: {', '.join(layouts)}")
        starts = [1, *self.phase_starts()]
        for number, (before, start) in enumerate(pairwise(starts)):
            if start <= before:
                raise ValueError(f"phases.{number} starts at step {start}, after data that starts at step {before}")
        if starts[-1] > self.steps:
            raise ValueError(f"phases.{len(starts) - 2} starts at step {starts[-1]}, of {self.steps} steps")
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> TrainConfig:
        if self.batch_size % self.rows_at_once:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _schedule_fits(self) -> TrainConfig:
        warmup, decay = self.schedule.warmup(self.steps), self.schedule.decay_steps(self.steps)
        if warmup > self.steps:
            raise ValueError(f"schedule.warmup_steps {warmup} is more than the run's {self.steps} steps")
        if warmup + decay > self.steps:
            raise ValueError(f"warm-up of {warmup} and decay of {decay} steps are more than the run's {self.steps}")
        return self

    @property
    def rows_at_once(self) -> int:
        """Sequences of a micro-batch."""
        if self.micro_batch_size is not None:
            return self.micro_batch_size
        return next(size for size in range(min(8, self.batch_size), 0, -1) if self.batch_size % size == 0)

    @property
    def mixed(self) -> tuple[SourceConfig, ...]:
        """What the run trains on before its first phase; its one layout counts as a source."""
        return with_curriculum(self.sources or (SourceConfig(layout=self.layout),), self.curriculum)

    def phase_starts(self) -> list[int]:
        """The first update of each phase, counted from 1."""
        return [phase.first_step(self.steps) for phase in self.phases]

    def layouts_of_this_run(self) -> dict[str, str]:
        """The layouts that the run itself must pack, by key; those of other outputs are not among them."""
        return {f"{key}layout": source.layout for key, source in self._own_sources()}

    def columns_of_this_run(self) -> dict[str, str]:
        """The columns that the run's own annotators must make, by key."""
        columns = {}
        for key, source in self._own_sources():
            if source.row_weights is not None:
                columns[f"{key}row_weights.column"] = source.row_weights.column
            if source.curriculum is not None:
                inherited = source.curriculum is self.curriculum
                columns[f"{'' if inherited else key}curriculum.column"] = source.curriculum.column
        return columns

    def _own_sources(self) -> Iterator[tuple[str, SourceConfig]]:
        """What is of the run's own output, and the key it stands under."""
        parts: dict[str, TrainConfig | PhaseConfig] = {
            "": self,
            **{f"phases.{n}.": p for n, p in enumerate(self.phases)},
        }
        for key, part in parts.items():
            for number, source in enumerate(part.mixed):
                if source.output is None:
                    yield f"{key}sources.{number}." if part.sources else key, source

    def decides_result(self) -> dict[str, Any]:
        """The settings that a resumed run must share with its checkpoint: other values would be another run. What
        belongs to the data is told by `TrainingData.fingerprints`.

        Rates and lengths are not among them: to train a finished WSD run for longer is a resume.
        """
        names = {"layout", "model", "batch_size", "seed", "document_masking", "validation_rows", "goldfish"}
        names |= {"mask_unpaid_ids"}
        return {**self.model_dump(mode="json", include=names), "optimizer": self.optimizer.type}
