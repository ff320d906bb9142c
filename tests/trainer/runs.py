"""Small runs to train on: documents whose text follows from their metadata, packed by the real packer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from colophon.shards.arrow_files import packed_table, write_table
from colophon.shards.layouts import Layout
from colophon.shards.manifest import Manifest, OutputManifest
from colophon.shards.metadata import DocumentMetadata
from colophon.shards.packing.pack import pack
from colophon.shards.schema import PackedInfo, SpecialIds, TokenizerInfo
from colophon.trainer.config import TrainConfig
from tests.recorded import record_of

SEQUENCE_LENGTH = 48
NUM_TEXT_IDS = 60
SPECIAL = SpecialIds(bos=60, eos=61, pad=62, boc=63, eoc=64, meta=(65, 66, 67))
TOKENIZER = TokenizerInfo(name="counting", sha256="0" * 64, num_base_ids=60, num_ids=68, special=SPECIAL)
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {"position": "plain"},
    "prepend": {"position": "prepend", "template": "{stride}", "max_metadata_tokens": 4, "dropout": 0.0},
    "append": {
        "position": "append",
        "template": "{stride}",
        "max_metadata_tokens": 4,
        "role_weights": {"metadata": 0.5},
        "dropout": 0.0,
    },
    "meta_tokens": {"position": "meta_tokens", "num_meta_tokens": 3},
    "masked": {"position": "plain", "role_weights": {"text": 0, "eos": 0, "wrapper": 1}},
}
TINY_MODEL = {"num_layers": 2, "hidden_size": 64, "ffn_size": 128, "num_heads": 4, "num_kv_heads": 2}


def config(layout: str = "prepend", **settings: Any) -> TrainConfig:
    """A run that takes seconds; `settings` as in a recipe."""
    defaults: dict[str, Any] = {"model": TINY_MODEL, "steps": 8, "batch_size": 8, "micro_batch_size": 4}
    return TrainConfig.model_validate({**defaults, "layout": layout, "device": "cpu", **settings})


def write_run(
    output: Path,
    *,
    num_documents: int = 60,
    seed: int = 0,
    sequence_length: int = SEQUENCE_LENGTH,
    layouts: Mapping[str, dict[str, Any]] = LAYOUTS,
    id_dtype: type[np.generic] = np.uint16,
) -> Path:
    """The output of a packed run with all `layouts`, two partitions each.

    The text of a document counts up in steps that its one metadata token gives.
    """
    random = np.random.default_rng(seed)
    outputs = {}
    for name, settings in layouts.items():
        records = []
        for partition, part in enumerate(np.array_split(random.integers(1, 10, num_documents), 2)):
            layout: Layout = TypeAdapter(Layout).validate_python(settings)
            path = output / "packed" / name / f"{partition}.arrow"
            path.parent.mkdir(parents=True, exist_ok=True)
            texts = _texts(part, random, id_dtype)
            rows = _write(path, name, layout, strides=part, texts=texts, sequence_length=sequence_length)
            records.append(record_of(output, path, rows=rows))
        outputs[f"packed/{name}"] = OutputManifest(settings={}, records=records)
    manifest = Manifest(colophon_version="0", recipe={}, partitions=[], outputs=outputs)
    (output / "manifest.json").write_text(manifest.model_dump_json())
    return output


def _texts(strides: Any, random: np.random.Generator, id_dtype: type[np.generic]) -> list[Any]:
    lengths = random.integers(5, 80, len(strides))
    return [
        ((stride * np.arange(length) + start) % 50).astype(id_dtype)
        for stride, length, start in zip(strides, lengths, random.integers(0, 50, len(strides)), strict=True)
    ]


def _write(path: Path, name: str, layout: Layout, *, strides: Any, texts: list[Any], sequence_length: int) -> int:
    packed = pack(
        layout,
        text_offsets=np.concatenate([[0], np.cumsum([len(text) for text in texts])]),
        text_ids=np.concatenate(texts),
        metadata=_metadata(layout, strides),
        special=SPECIAL,
        sequence_length=sequence_length,
    )
    info = PackedInfo(
        sequence_length=sequence_length,
        layout={"name": name, **layout.model_dump()},
        role_weights=layout.weights(),
        tokenizer=TOKENIZER,
        sources=["counting"],
        fingerprint=name,
        num_tokens=packed.num_tokens,
    )
    runs = {key: getattr(packed, key) for key in ("run_lengths", "run_roles", "run_documents", "runs_per_row")}
    table = packed_table(packed.input_ids, **runs, info=info)
    write_table(path, table)
    return table.num_rows


def _metadata(layout: Layout, strides: Any) -> DocumentMetadata:
    n = len(strides)
    length = {"plain": 0, "meta_tokens": 3}.get(layout.position, 1)
    return DocumentMetadata(
        wrapped=np.full(n, layout.position != "plain"),
        starts=np.arange(n),
        lengths=np.full(n, length),
        ids=(50 + strides).astype(np.uint32),
        counts={},
    )
