"""One training job for every contestant: sizes, batches, initial weights, and the result to report."""

from __future__ import annotations

import json
import resource
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor

from colophon.shards.arrow_files import packed_table, write_table
from colophon.shards.layouts import Layout
from colophon.shards.manifest import Manifest, OutputManifest
from colophon.shards.metadata import DocumentMetadata
from colophon.shards.packing.pack import pack
from colophon.shards.records import Record
from colophon.shards.schema import PackedInfo, SpecialIds, TokenizerInfo
from colophon.trainer.config import TrainConfig
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.model.decoder import Decoder

LAYOUT = "plain"
_ZIPF = 1.2
_MEAN_DOCUMENT = 600
"""Tokens of a document, log-normal: about as in web text."""


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """The model to train, the batches, and the number of steps."""

    preset: str
    num_ids: int
    sequence_length: int
    batch_size: int
    micro_batch_size: int
    steps: int
    warmup_steps: int
    """Steps at the start that are not timed: compilation, first touches."""
    device: str
    dtype: str
    work: str
    """Directory of the shards."""

    @property
    def output(self) -> Path:
        """Output directory of the packed run."""
        return Path(self.work) / "out"

    @property
    def tokens_per_step(self) -> int:
        """Labels of a global batch."""
        return self.batch_size * self.sequence_length

    def config(self, *, document_masking: bool, **settings: Any) -> TrainConfig:
        """Return Colophon's configuration: constant rate, no decay, no clipping, as the other contestants have;
        `settings` as in a recipe."""
        return TrainConfig.model_validate(
            {
                "layout": LAYOUT,
                "model": self.preset,
                "steps": self.steps,
                "batch_size": self.batch_size,
                "micro_batch_size": self.micro_batch_size,
                "learning_rate": 3e-4,
                "schedule": {"type": "wsd", "warmup_steps": 0, "decay_fraction": 0.0},
                "optimizer": {"weight_decay": 0.0, "max_grad_norm": None},
                "document_masking": document_masking,
                "validation_rows": 0,
                "checkpoint_every": 0,
                "device": self.device,
                "dtype": self.dtype,
                **settings,
            }
        )

    def rows(self) -> np.ndarray[Any, Any]:
        """Return the batches in Colophon's order, int64 [steps, batch_size, sequence_length + 1]."""
        data = TrainingData(self.config(document_masking=False), output=self.output)
        return np.stack([data.batch(step).tokens.numpy().astype(np.int64) for step in range(1, self.steps + 1)])

    def flops_per_token(self) -> int:
        """Return the operations of the model per token of an update, see `Decoder.flops_per_token`."""
        with torch.device("meta"):
            model = Decoder(self.config(document_masking=False).model, tokenizer=tokenizer_of(self.num_ids))
        return model.flops_per_token(self.sequence_length)

    def initial_weights(self) -> dict[str, Tensor]:
        """Draw the weights that a run of Colophon begins with, by the decoder's names."""
        model = Decoder(self.config(document_masking=False).model, tokenizer=tokenizer_of(self.num_ids))
        model.initialise(seed=0)
        return dict(model.state_dict())


def read_job(path: str) -> TrainingJob:
    """Read a job that `write_job` wrote."""
    return TrainingJob(**json.loads(Path(path).read_text()))


def write_job(job: TrainingJob) -> Path:
    """Write shards and the job's description; return the description's path."""
    tokenizer = tokenizer_of(job.num_ids)
    rows = job.batch_size * max(job.steps, 8)
    _write_shards(job.output, tokenizer=tokenizer, sequence_length=job.sequence_length, rows=rows)
    path = Path(job.work) / "job.json"
    path.write_text(json.dumps(asdict(job)))
    return path


def report(*, losses: list[float], seconds: list[float], job: TrainingJob, **more: float | None) -> None:
    """Print a contestant's result as the last line: losses of all steps, seconds of the timed steps, memory."""
    if job.device == "cuda":
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    timed = seconds[job.warmup_steps :]
    print(json.dumps({"losses": losses, "seconds": timed, "memory_bytes": memory, **more}))


def tokenizer_of(num_ids: int) -> TokenizerInfo:
    """Return a vocabulary of `num_ids` ids, of which the last five are special."""
    base = num_ids - 5
    special = SpecialIds(bos=base, eos=base + 1, pad=base + 2, boc=base + 3, eoc=base + 4)
    return TokenizerInfo(name="zipf", sha256="0" * 64, num_base_ids=base, num_ids=num_ids, special=special)


def _write_shards(output: Path, *, tokenizer: TokenizerInfo, sequence_length: int, rows: int) -> None:
    """Write documents of ids drawn by Zipf's law, packed by the real packer."""
    random = np.random.default_rng(0)
    num_documents = rows * sequence_length // _MEAN_DOCUMENT + 8
    lengths = np.maximum(random.lognormal(np.log(_MEAN_DOCUMENT) - 0.5, 1.0, num_documents), 8).astype(np.int64)
    dtype = np.uint16 if tokenizer.num_ids <= 2**16 else np.uint32
    ids = (random.zipf(_ZIPF, int(lengths.sum())) % tokenizer.num_base_ids).astype(dtype)
    layout: Any = TypeAdapter(Layout).validate_python({"position": LAYOUT})
    packed = pack(
        layout,
        text_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        text_ids=ids,
        metadata=DocumentMetadata(
            wrapped=np.zeros(num_documents, bool),
            starts=np.arange(num_documents),
            lengths=np.zeros(num_documents, np.int64),
            ids=np.zeros(num_documents, np.uint32),
            counts={},
        ),
        special=tokenizer.special,
        sequence_length=sequence_length,
    )
    info = PackedInfo(
        sequence_length=sequence_length,
        layout={"name": LAYOUT, **layout.model_dump()},
        role_weights=layout.weights(),
        tokenizer=tokenizer,
        sources=["zipf"],
        fingerprint="zipf",
        num_tokens=packed.num_tokens,
    )
    runs = {key: getattr(packed, key) for key in ("run_lengths", "run_roles", "run_documents", "runs_per_row")}
    table = packed_table(packed.input_ids, **runs, info=info)
    path = output / "packed" / LAYOUT / "0.arrow"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, table)
    record = Record(
        output=f"packed/{LAYOUT}",
        partition="0",
        path=str(path.relative_to(output)),
        rows=table.num_rows,
        bytes=path.stat().st_size,
        sha256="0" * 64,
        fingerprint="0" * 64,
    )
    outputs = {record.output: OutputManifest(settings={}, records=[record])}
    manifest = Manifest(colophon_version="0", recipe={}, partitions=[], outputs=outputs)
    (output / "manifest.json").write_text(manifest.model_dump_json())
