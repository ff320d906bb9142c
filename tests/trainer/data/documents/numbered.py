"""Runs in which every text token has an id of its own, so that a batch shows which tokens it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from colophon.shards.arrow_files import packed_table, write_table
from colophon.shards.layouts import Layout
from colophon.shards.manifest import Manifest, OutputManifest
from colophon.shards.metadata import DocumentMetadata
from colophon.shards.packing.methods import PackingMethod
from colophon.shards.packing.pack import pack
from colophon.shards.schema import PackedInfo, Role, SpecialIds, TokenizerInfo
from colophon.trainer.data.batch import Batch
from tests.recorded import record_of

SPECIAL = SpecialIds(bos=0, eos=1, pad=2, boc=3, eoc=4, meta=(5, 6, 7))
FIRST_TEXT_ID = 16
TOKENIZER = TokenizerInfo(name="numbered", sha256="0" * 64, num_base_ids=60_000, num_ids=60_000, special=SPECIAL)
SEQUENCE_LENGTH = 12
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {"position": "plain"},
    "prepend": {"position": "prepend", "template": "{a}", "max_metadata_tokens": 4, "dropout": 0.0},
    "append": {
        "position": "append",
        "template": "{a}",
        "max_metadata_tokens": 4,
        "segments": "last",
        "role_weights": {"metadata": 0.5},
        "dropout": 0.0,
    },
    "meta_tokens": {"position": "meta_tokens", "num_meta_tokens": 3},
}


def write_numbered(
    output: Path,
    lengths: Sequence[Sequence[int]],
    *,
    layouts: Mapping[str, dict[str, Any]] = LAYOUTS,
    methods: Sequence[PackingMethod] = ("concat", "best_fit"),
) -> Path:
    """A run whose partitions have documents of these lengths, 0 for no text, in layouts named `plain-concat`."""
    outputs = {}
    for name, settings in layouts.items():
        for method in methods:
            records, first = [], FIRST_TEXT_ID
            for partition, of_documents in enumerate(lengths):
                path = output / "packed" / f"{name}-{method}" / f"{partition}.arrow"
                layout: Layout = TypeAdapter(Layout).validate_python(settings)
                rows = _write(path, f"{name}-{method}", layout, lengths=of_documents, first=first, method=method)
                first += sum(of_documents)
                records.append(record_of(output, path, rows=rows))
            outputs[f"packed/{name}-{method}"] = OutputManifest(settings={}, records=records)
    manifest = Manifest(colophon_version="0", recipe={}, partitions=[], outputs=outputs)
    (output / "manifest.json").write_text(manifest.model_dump_json())
    return output


def _write(path: Path, name: str, layout: Layout, *, lengths: Sequence[int], first: int, method: PackingMethod) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    n = len(lengths)
    per_document = np.arange(n) % 3 if layout.position in ("prepend", "append") else np.zeros(n, np.int64)
    per_document = np.full(n, 3) if layout.position == "meta_tokens" else per_document
    packed = pack(
        layout,
        text_offsets=offsets,
        text_ids=np.arange(first, first + offsets[-1], dtype=np.uint16),
        metadata=DocumentMetadata(
            wrapped=np.full(n, layout.position != "plain"),
            starts=np.cumsum(per_document) - per_document,
            lengths=per_document,
            ids=np.full(int(per_document.sum()), 8, np.uint32),
            counts={},
        ),
        special=SPECIAL,
        sequence_length=SEQUENCE_LENGTH,
        method=method,
    )
    info = PackedInfo(
        sequence_length=SEQUENCE_LENGTH,
        layout={"name": name, **layout.model_dump()},
        role_weights=layout.weights(),
        tokenizer=TOKENIZER,
        sources=["numbered"],
        fingerprint=name,
        num_tokens=packed.num_tokens,
    )
    runs = {key: getattr(packed, key) for key in ("run_lengths", "run_roles", "run_documents", "runs_per_row")}
    table = packed_table(packed.input_ids, **runs, info=info)
    write_table(path, table)
    return table.num_rows


def text_labels(batch: Batch) -> list[int]:
    """The ids of the text labels of a batch, ascending: their numbers in the run. Each must have loss weight."""
    is_text = batch.label_roles == Role.TEXT
    assert (batch.loss_weights[is_text] == 1).all()
    return sorted((batch.labels[is_text] - FIRST_TEXT_ID).tolist())
