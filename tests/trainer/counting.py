"""A run as the pipeline writes it, whose texts count in steps that their metadata names; and models trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from colophon.shards.arrow_files import packed_table, tokens_table, write_table
from colophon.shards.layouts import Layout, parse_layout
from colophon.shards.manifest import Manifest, OutputManifest
from colophon.shards.metadata import document_metadata
from colophon.shards.packing.pack import pack
from colophon.shards.records import Record
from colophon.shards.schema import PackedInfo
from colophon.trainer.checkpoints.checkpoint import TrainingState
from colophon.trainer.inference.contexts import TrainedLayout
from colophon.trainer.inference.trained_model import TrainedModel, load_trained
from colophon.trainer.loop import train
from colophon.trainer.model.decoder import Decoder
from tests.recorded import record_of
from tests.trainer.runs import SPECIAL, TINY_MODEL, TOKENIZER, config

NUM_COUNTS, STEPS = 20, range(1, 6)
"""Text ids go from 0 to 19."""
METADATA = 50
"""The metadata id of a step is the step plus this."""
SEQUENCE_LENGTH = 48
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {"position": "plain"},
    "prepend": {"position": "prepend", "template": "{step}", "max_metadata_tokens": 4, "dropout": 0.2},
    "append": {"position": "append", "template": "{step}", "max_metadata_tokens": 4, "dropout": 0.2},
    "meta_tokens": {"position": "meta_tokens", "num_meta_tokens": 3},
}


def layout_called(name: str) -> Layout:
    """One of `LAYOUTS`."""
    return parse_layout(LAYOUTS[name], where="test")


def counting_layout(name: str) -> TrainedLayout:
    """One of `LAYOUTS`, as a model's."""
    return TrainedLayout(name=name, layout=layout_called(name), sequence_length=SEQUENCE_LENGTH, special=SPECIAL)


class CountingTokenizer:
    """The tokenizer of these texts: id 12 is `12`, metadata `3` is the id 53."""

    def encode_batch(self, texts: pa.Array) -> pa.ListArray:
        """Ids of metadata."""
        ids = [[METADATA + int(text)] for text in texts.to_pylist()]
        return pa.array(ids, pa.list_(pa.uint16()))

    def decode(self, ids: Any) -> str:
        """Three bytes an id."""
        return "".join(f"{int(token):02} " for token in ids)


def count(start: int, step: int, *, length: int) -> list[int]:
    """A text that counts from `start` in steps of `step`."""
    return [(start + step * i) % NUM_COUNTS for i in range(length)]


def wrapped(step: int | None) -> list[int]:
    """Ids before a text: the wrapper with the metadata `step`; None: the empty wrapper."""
    return [SPECIAL.bos, SPECIAL.boc, *([] if step is None else [METADATA + step]), SPECIAL.eoc]


def write_counting_run(output: Path, *, num_documents: int = 1000, num_partitions: int = 2) -> Path:
    """Write token files, the layouts' packed files, and annotations: `step`, `parity` (null for some) and `rank`."""
    random = np.random.default_rng(0)
    records_by_output: dict[str, list[Record]] = {}
    for number, part in enumerate(np.array_split(random.choice(STEPS, num_documents), num_partitions)):
        texts = [
            count(int(random.integers(NUM_COUNTS)), step, length=int(random.integers(4, 24))) for step in part.tolist()
        ]
        texts[3] = texts[-1] = []
        ids = pa.array([f"{number}-{i}" for i in range(len(texts))])
        steps = pa.array(part)
        for directory, table in _tables(ids, texts, steps).items():
            suffix = "parquet" if directory.startswith("annotations/") else "arrow"
            path = output / directory / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            (pq.write_table if suffix == "parquet" else _write)(table, path)
            records_by_output.setdefault(directory, []).append(record_of(output, path, rows=table.num_rows))
    tokenizer = {"tokenizer": {"name": TOKENIZER.name, "sha256": TOKENIZER.sha256}}
    layouts = {
        f"packed/{name}": {
            "layout": layout_called(name).model_dump(mode="json"),
            "pack": {"sequence_length": SEQUENCE_LENGTH},
        }
        for name in LAYOUTS
    }
    described = {
        directory: OutputManifest(settings={"tokens": tokenizer, **layouts}.get(directory, {}), records=records)
        for directory, records in records_by_output.items()
    }
    manifest = Manifest(colophon_version="0", recipe={}, partitions=[], outputs=described)
    (output / "manifest.json").write_text(manifest.model_dump_json())
    return output


def random_model(*, masked_ids: tuple[int, ...] = (), **model: Any) -> TrainedModel:
    """A model of such texts with random weights."""
    settings = config(model={**TINY_MODEL, **model})
    decoder = Decoder(settings.model, tokenizer=TOKENIZER, masked_ids=masked_ids)
    decoder.initialise(seed=1)
    return TrainedModel(
        name="random",
        model=decoder.requires_grad_(False),
        config=settings,
        tokenizer=TOKENIZER,
        state=TrainingState(step=0),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def train_counting(output: Path, layout: str, *, steps: int) -> tuple[TrainedModel, TrainedLayout]:
    """Train a model, in about 20 ms per step; after 300 steps it counts correctly."""
    rates = {"learning_rate": 1e-2, "optimizer": {"weight_decay": 0.0}}
    settings = config(layout, steps=steps, batch_size=16, micro_batch_size=16, validation_rows=20, **rates)
    train(settings, name=layout, output=output)
    trained = load_trained(output, layout)
    return trained, trained.layout


def _write(table: pa.Table, path: Path) -> None:
    """Write several record batches, as large partitions have."""
    write_table(path, pa.Table.from_batches(table.to_batches(max_chunksize=4)))


def _tables(ids: pa.Array, texts: list[list[int]], steps: pa.Array) -> dict[str, pa.Table]:
    """The tables of one partition's files by their directories."""
    lists = pa.array(texts, pa.list_(pa.uint16()))
    parity = pa.array(
        [None if i % 10 == 7 else "odd" if step % 2 else "even" for i, step in enumerate(steps.to_pylist())]
    )
    rank = pa.array(np.arange(len(texts)) / 7)
    return {
        "tokens": tokens_table(ids, lists, dtype=np.dtype(np.uint16)),
        "annotations/steps": pa.table({"step": steps, "parity": parity, "rank": rank}),
        **{f"packed/{name}": _packed(name, ids, texts, steps) for name in LAYOUTS},
    }


def _packed(name: str, ids: pa.Array, texts: list[list[int]], steps: pa.Array) -> pa.Table:
    layout = layout_called(name)
    packed = pack(
        layout,
        text_offsets=np.cumsum([0, *map(len, texts)]),
        text_ids=np.concatenate(texts).astype(np.uint16),
        metadata=document_metadata(layout, ids=ids, columns={"step": steps}, tokenizer=CountingTokenizer(), seed=0),
        special=SPECIAL,
        sequence_length=SEQUENCE_LENGTH,
    )
    info = PackedInfo(
        sequence_length=SEQUENCE_LENGTH,
        layout={"name": name, **layout.model_dump(mode="json")},
        role_weights=layout.weights(),
        tokenizer=TOKENIZER,
        sources=["counting"],
        fingerprint=name,
        num_tokens=packed.num_tokens,
    )
    runs = {key: getattr(packed, key) for key in ("run_lengths", "run_roles", "run_documents", "runs_per_row")}
    return packed_table(packed.input_ids, **runs, info=info)
