"""Readers of each format, written from its documentation alone: ids, weights of labels, and ends of segments by row."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True)
class Read:
    """The rows of a conversion, with `w` ids each."""

    input_ids: Any
    """[n, w]."""
    weights: Any
    """[n, w - 1], of the labels."""
    ends: list[list[int]]
    """The ends of each row's segments; of the inputs' segments where the format has them alone."""


def read_megatron(directory: Path, width: int) -> Read:
    ids, weights, lengths = (_indexed(directory / name) for name in ("ids", "loss_weights", "segment_lengths"))
    assert {len(values) for values in (*ids, *weights)} == {width}
    ends = [np.cumsum(values).tolist() for values in lengths]
    return Read(np.stack(ids), np.stack(weights)[:, 1:], ends)


def _indexed(prefix: Path) -> list[Any]:
    index, data = prefix.with_suffix(".idx").read_bytes(), prefix.with_suffix(".bin").read_bytes()
    magic, version, code, sequences, documents = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version, documents) == (b"MMIDIDX\x00\x00", 1, sequences + 1)
    dtype = np.dtype({1: "u1", 4: "<i4", 7: "<f4", 8: "<u2"}[code])
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    first_sequences = np.frombuffer(index, "<i8", documents, 34 + 12 * sequences)
    assert len(index) == 34 + 12 * sequences + 8 * documents
    assert first_sequences.tolist() == list(range(documents))
    return [np.frombuffer(data, dtype, n, at) for n, at in zip(lengths.tolist(), pointers.tolist(), strict=True)]


def read_mds(directory: Path, width: int) -> Read:
    shards = json.loads((directory / "index.json").read_text())["shards"]
    samples = [sample for shard in shards for sample in _mds_samples(directory, shard)]
    assert {len(sample["input_ids"]) for sample in samples} == {width}
    return Read(
        np.stack([sample["input_ids"] for sample in samples]),
        np.stack([sample["loss_weights"] for sample in samples]),
        [sample["cu_seqlens"][1:].tolist() for sample in samples],
    )


def _mds_samples(directory: Path, shard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    data = (directory / shard["raw_data"]["basename"]).read_bytes()
    assert len(data) == shard["raw_data"]["bytes"]
    (count,) = struct.unpack_from("<I", data)
    assert count == shard["samples"]
    offsets = struct.unpack_from(f"<{count + 1}I", data, 4)
    config = json.loads(data[4 * (count + 2) : offsets[0]])
    assert config["column_encodings"] == shard["column_encodings"]
    assert offsets[-1] == len(data)
    for start, end in pairwise(offsets):
        yield _mds_sample(data[start:end], shard)


def _mds_sample(data: bytes, shard: dict[str, Any]) -> dict[str, Any]:
    num_variable = sum(size is None for size in shard["column_sizes"])
    variable = iter(struct.unpack_from(f"<{num_variable}I", data))
    place, sample = 4 * num_variable, {}
    columns = zip(shard["column_names"], shard["column_encodings"], shard["column_sizes"], strict=True)
    for name, encoding, fixed in columns:
        size = next(variable) if fixed is None else fixed
        value = data[place : place + size]
        place += size
        kind, *rest = encoding.split(":")
        if kind == "str":
            sample[name] = value.decode()
        elif len(rest) == 1:  # one byte: 4 x dimensions + log2 of the bytes of a size
            assert value[0] >> 2 == 1
            head = 1 + (1 << value[0] % 4)
            sample[name] = np.frombuffer(value[head:], rest[0])
            assert int.from_bytes(value[1:head], "little") == len(sample[name])
        else:
            sample[name] = np.frombuffer(value, rest[0])
            assert rest[1] == str(len(sample[name]))
    assert place == len(data)
    return sample


def read_npy(directory: Path, width: int) -> Read:
    names = sorted(path.name for path in (directory / "ids").glob("*.npy"))
    dtype = _id_dtype(directory)
    ids = [np.fromfile(directory / "ids" / name, dtype).reshape(-1, width) for name in names]
    mask = [np.fromfile(directory / "label_mask" / name, bool).reshape(-1, width) for name in names]
    ends: list[list[int]] = [[] for part in ids for _ in part]
    first_row = 0
    for name, part in zip(names, ids, strict=True):
        with gzip.open(directory / "ids" / name.replace(".npy", ".csv.gz"), "rt") as lines:
            for line in lines:
                start, end, _, _ = line.split(",")
                row = int(start) // width
                ends[first_row + row].append(int(end) - row * width)
        first_row += len(part)
    return Read(np.concatenate(ids), np.concatenate(mask)[:, 1:], ends)


def read_nanotron(directory: Path, width: int) -> Read:
    dtype, ids, loss, ends = _id_dtype(directory), [], [], []
    for path in sorted(directory.glob("*.ds")):
        ids.append(np.fromfile(path, dtype).reshape(-1, width))
        loss.append(np.fromfile(f"{path}.loss", bool).reshape(-1, width))
        found: list[list[int]] = [[] for _ in ids[-1]]
        for end in np.fromfile(f"{path}.index", "<u8").tolist():
            found[(end - 1) // width].append((end - 1) % width + 1)
        ends += found
        name, tokens, _ = Path(f"{path}.metadata").read_text().split("\n")
        assert name == f"counting|{dtype.itemsize}"
        assert int(tokens) == ids[-1].size
    return Read(np.concatenate(ids), np.concatenate(loss)[:, 1:], ends)


def _id_dtype(directory: Path) -> np.dtype[Any]:
    return np.dtype(json.loads((directory / "conversion.json").read_text())["id_dtype"]).newbyteorder("<")


def read_parquet(directory: Path, width: int) -> Read:
    table = pa.concat_tables([pq.read_table(path) for path in sorted((directory / "data").glob("*.parquet"))])
    arrays = {
        name: np.stack(table.column(name).to_numpy()) for name in ("input_ids", "labels", "loss_weights", "positions")
    }
    cu_seqlens = [values.as_py() for values in table.column("cu_seqlens")]
    assert ((arrays["labels"] == -100) == (arrays["loss_weights"] == 0)).all()
    shown = arrays["labels"] != -100
    assert (arrays["labels"][:, :-1][shown[:, :-1]] == arrays["input_ids"][:, 1:][shown[:, :-1]]).all()
    for row, boundaries in enumerate(cu_seqlens):
        expected = np.concatenate([np.arange(n) for n in np.diff(boundaries)])
        assert arrays["positions"][row].tolist() == expected.tolist()
    # The last token of a row is a label alone.
    ids = np.concatenate([arrays["input_ids"], arrays["labels"][:, -1:]], axis=1)
    assert ids.shape[1] == width
    return Read(ids, arrays["loss_weights"], [boundaries[1:] for boundaries in cu_seqlens])


READERS: dict[str, Callable[[Path, int], Read]] = {
    "megatron": read_megatron,
    "mds": read_mds,
    "npy": read_npy,
    "nanotron": read_nanotron,
    "parquet": read_parquet,
}
