from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

import trainer.attention
from shards.reader import PackedDataset
from tests.trainer.runs import LAYOUTS, SPECIAL, TINY_MODEL, TOKENIZER
from trainer.attention import attend, block_mask, dense_mask, document_mask
from trainer.config import ModelConfig
from trainer.data import Batch, read_batch
from trainer.model import Decoder


@pytest.fixture(scope="module")
def model() -> Decoder:
    decoder = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER).double()
    decoder.initialise(seed=1)
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            parameter.data *= 10  # so that attention is far from uniform
    return decoder


def segments_of(batch: Batch) -> Iterator[tuple[int, slice]]:
    for row, segments in enumerate(batch.segments):
        _, lengths = segments.unique_consecutive(return_counts=True)
        ends = lengths.cumsum(0).tolist()
        yield from ((row, slice(start, end)) for start, end in zip([0, *ends], ends, strict=False))


@torch.no_grad()
def states(model: Decoder, batch: Batch, input_ids: Tensor | None = None, *, masked: bool = True) -> Tensor:
    ids = batch.input_ids if input_ids is None else input_ids
    return model.hidden_states(ids, batch.positions, document_mask(batch.segments) if masked else None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_document_reads_as_if_it_stood_alone(packed_run: Path, model: Decoder, layout: str) -> None:
    dataset = PackedDataset.open(packed_run, layout)
    batch = read_batch(dataset, range(12))
    packed = states(model, batch)
    for row, part in segments_of(batch):
        ids = batch.input_ids[row : row + 1, part]
        with torch.no_grad():
            alone = model.hidden_states(ids, torch.arange(ids.shape[1], dtype=torch.int32)[None], None)
        torch.testing.assert_close(packed[row, part], alone[0], rtol=1e-9, atol=1e-9)


def test_without_masking_documents_do_read_each_other(packed_run: Path, model: Decoder) -> None:
    batch = read_batch(PackedDataset.open(packed_run, "prepend"), range(4))
    row, part = next((row, part) for row, part in segments_of(batch) if part.start > 0)
    changed = batch.input_ids.clone()
    changed[row, 1 : part.start] = (changed[row, 1 : part.start] + 1) % 50

    def moved(*, masked: bool) -> float:
        difference = states(model, batch, masked=masked) - states(model, batch, changed, masked=masked)
        return difference[row, part].abs().max().item()

    assert moved(masked=True) == 0
    assert moved(masked=False) > 1e-3


def test_text_and_padding_never_meet(packed_run: Path) -> None:
    dataset = PackedDataset.open(packed_run, "plain")
    batch = read_batch(dataset, range(len(dataset)))
    padding = batch.input_ids == SPECIAL.pad
    assert padding.any()
    seen = dense_mask(batch.segments)[:, 0]
    assert not seen[padding[:, :, None] & ~padding[:, None, :]].any()
    assert not seen[~padding[:, :, None] & padding[:, None, :]].any()
    assert seen.diagonal(dim1=1, dim2=2).all()  # softmax over nothing would be NaN


def test_the_mask_by_brute_force() -> None:
    mask = dense_mask(torch.tensor([[0, 0, 1, 1, 2]], dtype=torch.int32))
    assert mask.int().tolist() == [
        [[[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]]
    ]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_and_the_dense_mask_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer.attention, "_compiled_flex_attention", lambda: flex_attention)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 300, 16, generator=generator)
    key, value = (torch.randn(2, 2, 300, 16, generator=generator) for _ in range(2))
    segments = torch.randint(0, 2, (2, 300), generator=generator, dtype=torch.int32).cumsum(1).div(20).int()
    flex = attend(query, key, value, mask=block_mask(segments, compiled=False))
    dense = attend(query, key, value, mask=dense_mask(segments))
    torch.testing.assert_close(flex, dense, rtol=1e-4, atol=1e-5)


def test_one_segment_is_plain_causal_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 20, 8, generator=generator)
    key, value = (torch.randn(1, 2, 20, 8, generator=generator) for _ in range(2))
    masked = attend(query, key, value, mask=dense_mask(torch.zeros(1, 20, dtype=torch.int32)))
    torch.testing.assert_close(masked, attend(query, key, value, mask=None))
