"""The settings of one training run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator, model_validator

from colophon.shards.common.paths import local_path
from colophon.shards.stores.cache_settings import DEFAULT_CACHE_BYTES, CacheSettings
from colophon.trainer.config.base import Settings
from colophon.trainer.config.data import (
    CurriculumConfig,
    GoldfishConfig,
    PhaseConfig,
    SourceConfig,
    check_phase_starts,
    check_weights,
    with_curriculum,
)
from colophon.trainer.config.model import ModelConfig
from colophon.trainer.config.optimizer import AdamWConfig, OptimizerConfig
from colophon.trainer.config.schedule import CosineSchedule, ScheduleConfig

CompileScope: TypeAlias = Literal["layers", "model", "cuda_graphs"]
"""The parts of a model that are compiled, see `TrainConfig.compile`."""


class TrainConfig(Settings):
    """One training run: packed layouts, model, length, validation, checkpoints.

    Example:

        [train.web]
        layout = "prepend-url"
        model = "124m"
        steps = 20000
        schedule = "wsd"
    """

    renamed_keys: ClassVar[dict[str, str]] = {"mask_unpaid_ids": "mask_zero_weight_ids"}
    """New names by old ones: a recipe with an old name is refused, a file of an older run is read."""

    layout: str
    """Name of a packed layout of the run. With `sources` the one that validation uses, and not required: by default the
    first."""
    sources: tuple[SourceConfig, ...] = ()
    """Several layouts to mix, instead of `layout`."""
    phases: tuple[PhaseConfig, ...] = ()
    """Different data from some step on; each phase starts later than the one before."""
    curriculum: CurriculumConfig | None = None
    """The curriculum of all sources without one of their own; phases have theirs."""
    model: ModelConfig
    """The name of a preset, or a table."""
    steps: int | None = Field(None, ge=1)
    """Updates of the weights. A run has either `steps` or `text_tokens`."""
    text_tokens: int | None = Field(None, ge=1)
    """Tokens of documents' text to train on, instead of `steps`: the run ends with the update that reaches this number.
    Metadata, wrappers and other special tokens do not count, so runs on different layouts read equally much text."""
    order: Literal["rows", "documents"] = "rows"
    """`rows`: an update has `batch_size` rows of the layout, drawn at random. `documents`: update n of every layout of
    a run trains on the same `batch_size` x `sequence_length` text tokens, so that layouts can be compared; the number
    of rows varies."""
    batch_size: int = Field(504, ge=1)
    """Sequences per update, over all devices; with `order = "documents"` this many times `sequence_length` text
    tokens."""
    micro_batch_size: int | None = Field(None, ge=1)
    """Sequences per forward and backward pass of one device. None: as many as `micro_batch_tokens` allows; on a CPU the
    largest divisor of `batch_size` up to 8."""
    micro_batch_tokens: int | None = Field(None, ge=1)
    """Without `micro_batch_size`: the most tokens per forward and backward pass of one device. At the start the largest
    divisor of its sequences that fits into the memory is searched, and kept in `micro_batch.json` for a resume; with
    several processes there is no search. None: 65,536 on a GPU (32,768 with several), no limit by tokens on a CPU."""
    learning_rate: float = Field(3e-4, gt=0, allow_inf_nan=False)
    """The highest rate; `schedule` gives the warm-up and the decay."""
    optimizer: OptimizerConfig = AdamWConfig()
    """A name, or a table with a `type`, by default `adamw`."""
    schedule: ScheduleConfig = CosineSchedule()
    """A name, or a table with a `type`, by default `cosine`."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the initial weights, the data order and the choice of held-out rows."""
    document_masking: bool = True
    """Tokens attend within their own segment only, and positions restart there. False: plain causal attention over the
    whole sequence, as in the paper's code; document k then reads the metadata of document k - 1."""
    validation_output: str | None = None
    """Output of a different run, a directory or a URL of an object store, whose layout of the same name is used for
    validation. None: rows are held out."""
    validation_rows: int | None = Field(None, ge=0)
    """Rows for validation; 0: no validation. None: all rows of `validation_output`, or else a hundredth of the layout's
    rows (1 to 256), held out of training. With `order = "documents"`: whole documents of about this many times
    `sequence_length` text tokens, so their number of rows differs."""
    validation_every: int = Field(250, ge=1)
    """Steps between validations; the last step is followed by one too."""
    checkpoint_every: int = Field(1000, ge=0)
    """Steps between checkpoints; the last step is followed by one too. 0: none at all, so nothing to resume."""
    keep_checkpoints: int = Field(2, ge=1)
    """The number of newest checkpoints to keep."""
    group_by: tuple[str, ...] = ()
    """Annotation columns: the metrics have the text loss by each value of them, in training and validation: the twenty
    values with the most documents, and all others together; of a column of numbers, fifths."""
    log_every: int = Field(10, ge=1)
    """Steps between console lines; `metrics.jsonl` has every step."""
    tensorboard: bool = False
    """Whether metrics are also written to event files under the run's `tensorboard/`; needs the extra `tensorboard`."""
    wandb_project: str | None = None
    """The project of Weights & Biases that metrics are also sent to; needs the extra `wandb`."""
    mask_zero_weight_ids: bool = False
    """Whether special ids that never have loss weight in the layout (wrapper, meta tokens, bos, padding) get no
    probability, so that all layouts predict over one vocabulary."""
    goldfish: GoldfishConfig | None = None
    """Masks some text labels; `{}` for all defaults. None: none."""
    cache_bytes: int = Field(DEFAULT_CACHE_BYTES, ge=0)
    """Most bytes on a machine's disk for rows that were read from an object store, of all its processes and layouts
    together; 0: none are kept."""
    cache_directory: str | None = None
    """Local directory of these rows; only trainings share it. None: `shards/` in Colophon's directory of caches."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float8"] = "auto"
    """Type of activations and matrix products; weights, optimizer and loss stay float32. auto: bfloat16 on CUDA,
    float32 on CPU. float8: bfloat16, with the products of the layers' larger matrices in float8; needs the extra `fp8`
    and a GPU of compute capability 8.9 or more."""
    attention: Literal["auto", "varlen", "flex", "sdpa"] = "auto"
    """How documents are masked. auto: varlen (flash attention) on CUDA in bfloat16, flex on CUDA in float32, sdpa with
    a dense mask on CPU."""
    compile: bool | CompileScope | None = None
    """The parts that are compiled, with the loss. true or `layers`: each layer, once for all of them. `model`: all
    layers as one graph, which takes a GPU's host less time for each micro-batch, and minutes to compile. `cuda_graphs`:
    the same, and a GPU repeats its recorded operations, for models up to about `124m`. Several processes compile layers
    instead. None: layers on CUDA, else nothing. Where torch.compile does not work, a line says so, and nothing is
    compiled."""
    activation_checkpointing: bool = False
    """Whether the backward pass recomputes a layer's activations instead of storing them: less memory, about a third
    more time."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """Sharing among the processes of one run (torchrun). ddp: the batch. fsdp: the batch, weights and optimizer. auto:
    fsdp where weights, gradients and AdamW's moments take more than a quarter of the device's memory, else ddp."""

    @field_validator("schedule", "optimizer", mode="before")
    @classmethod
    def _fill_type(cls, value: Any, info: ValidationInfo) -> Any:
        """A table without a type has the default's; a name alone means a table of its defaults."""
        default = {"schedule": "cosine", "optimizer": "adamw"}[info.field_name or ""]
        if isinstance(value, str):
            return {"type": value}
        return {"type": default, **value} if isinstance(value, dict) else value

    @model_validator(mode="before")
    @classmethod
    def _fill_layout(cls, value: Any) -> Any:
        """The first source's layout where only `sources` are given."""
        sources = value.get("sources") if isinstance(value, dict) else None
        if not isinstance(sources, (list, tuple)) or not sources or "layout" in value:
            return value
        first = sources[0]
        layout = first.get("layout") if isinstance(first, dict) else getattr(first, "layout", None)
        return value if layout is None else {**value, "layout": layout}

    @model_validator(mode="after")
    def _check_sources_and_phases(self) -> TrainConfig:
        check_weights(self.sources)
        layouts = [source.layout for source in self.mixed_sources]
        if self.layout not in layouts:
            raise ValueError(f"layout {self.layout!r} is none of the sources'; available: {', '.join(layouts)}")
        if self.steps is not None:
            check_phase_starts(self.phase_starts(), steps=self.steps)
        return self

    @model_validator(mode="after")
    def _check_order(self) -> TrainConfig:
        if self.order == "rows":
            return self
        parts = [self.mixed_sources, *(phase.mixed_sources for phase in self.phases)]
        one_each = all(len(sources) == 1 and sources[0].output is None for sources in parts)
        weighted = any(source.row_weights or source.curriculum for sources in parts for source in sources)
        if not one_each or weighted:
            raise ValueError(
                'order = "documents" takes one layout of the run itself at a time, without row_weights and curriculum: '
                'every layout has the same order of documents. For a mixture, use order = "rows" and text_tokens'
            )
        return self

    @model_validator(mode="after")
    def _check_batch_size(self) -> TrainConfig:
        if self.batch_size % self.rows_at_once:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _check_length(self) -> TrainConfig:
        if (self.steps is None) == (self.text_tokens is None):
            raise ValueError("a run has either steps or text_tokens")
        if self.steps is not None:
            self.schedule.check(self.steps)
        return self

    @property
    def rows_at_once(self) -> int:
        """Sequences of a micro-batch where none are searched, see `trainer.device.micro_batch`."""
        if self.micro_batch_size is not None:
            return self.micro_batch_size
        return next(size for size in range(min(8, self.batch_size), 0, -1) if self.batch_size % size == 0)

    @property
    def num_steps(self) -> int:
        """Updates of the run. With `text_tokens`, only settings that `with_length` returned have it."""
        if self.steps is None:
            raise ValueError("the number of steps for text_tokens is known once the data is opened")
        return self.steps

    def with_length(self, steps: int, *, phase_starts: Sequence[int]) -> TrainConfig:
        """The settings of a run of `steps` updates whose phases start at these updates.

        Raises:
            ValueError: a phase would start after the run's end, or not after the phase before it; the schedule does not
                fit the number of steps.
        """
        check_phase_starts(phase_starts, steps=steps)
        self.schedule.check(steps)
        phases = tuple(
            phase.model_copy(update={"from_step": start, "from_fraction": None})
            for phase, start in zip(self.phases, phase_starts, strict=True)
        )
        return self.model_copy(update={"steps": steps, "phases": phases})

    @property
    def mixed_sources(self) -> tuple[SourceConfig, ...]:
        """The sources before the first phase; `layout` alone counts as one source."""
        return with_curriculum(self.sources or (SourceConfig(layout=self.layout),), self.curriculum)

    def phase_starts(self) -> list[int]:
        """The first update of each phase, counted from 1."""
        return [phase.first_step(self.num_steps) for phase in self.phases]

    def layouts_of_this_run(self) -> dict[str, str]:
        """The layouts that the run itself must pack, by key; layouts of other outputs are not included."""
        return {f"{key}layout": source.layout for key, source in self._own_sources()}

    def columns_of_this_run(self) -> dict[str, str]:
        """The columns that the run's own annotators must provide, by key."""
        columns = {}
        for key, source in self._own_sources():
            if source.row_weights is not None:
                columns[f"{key}row_weights.column"] = source.row_weights.column
            if source.curriculum is not None:
                inherited = source.curriculum is self.curriculum
                columns[f"{'' if inherited else key}curriculum.column"] = source.curriculum.column
        if next(self._own_sources(), None) is not None:
            columns |= {f"group_by.{number}": column for number, column in enumerate(self.group_by)}
        return columns

    def _own_sources(self) -> Iterator[tuple[str, SourceConfig]]:
        """Sources from the run's own output, each with the prefix of its keys: `sources.1.`, `phases.0.`, or empty."""
        parts: dict[str, TrainConfig | PhaseConfig] = {
            "": self,
            **{f"phases.{n}.": p for n, p in enumerate(self.phases)},
        }
        for key, part in parts.items():
            for number, source in enumerate(part.mixed_sources):
                if source.output is None:
                    yield f"{key}sources.{number}." if part.sources else key, source

    @property
    def cache(self) -> CacheSettings:
        """The cache of rows of object stores."""
        directory = None if self.cache_directory is None else Path(local_path(self.cache_directory))
        return CacheSettings(max_bytes=self.cache_bytes, directory=directory)

    def addresses(self) -> Iterator[tuple[str, str]]:
        """The directories and outputs of other runs that the settings name, each with its key."""
        if self.cache_directory is not None:
            yield "cache_directory", self.cache_directory
        if self.validation_output is not None:
            yield "validation_output", self.validation_output
        parts = [("", self.sources), *((f"phases.{n}.", phase.sources) for n, phase in enumerate(self.phases))]
        for prefix, sources in parts:
            for number, source in enumerate(sources):
                if source.output is not None:
                    yield f"{prefix}sources.{number}.output", source.output

    def resume_settings(self) -> dict[str, Any]:
        """The settings that a resumed run must share with its checkpoint. `TrainingData.fingerprints` has those of the
        data.

        Rates and lengths are not included: training a finished WSD run for longer is a resume.
        """
        names = {"layout", "model", "batch_size", "seed", "document_masking", "validation_rows", "goldfish"}
        names |= {"mask_zero_weight_ids"}
        return {**self.model_dump(mode="json", include=names), "optimizer": self.optimizer.type}


def with_current_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run, as an older version wrote them, with renamed keys under their new names."""
    return {TrainConfig.renamed_keys.get(key, key): value for key, value in settings.items()}
