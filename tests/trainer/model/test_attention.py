from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from colophon.shards.reader import PackedDataset
from colophon.trainer.config import ModelConfig
from colophon.trainer.data.batch import Batch, read_batch
from colophon.trainer.errors import TrainerError
from colophon.trainer.loop import train
from colophon.trainer.model import attention
from colophon.trainer.model.attention import (
    AttentionKind,
    attend,
    choose_attention,
    dense_mask,
    document_mask,
    segment_bounds,
    why_not,
)
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.parallel import SharedModel, World
from colophon.trainer.step import Arithmetic, validation_losses
from tests.trainer import varlen_on_cpu
from tests.trainer.runs import LAYOUTS, SPECIAL, TINY_MODEL, TOKENIZER, config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Decoder:
    decoder = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER).double()
    decoder.initialise(seed=1)
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            parameter.data *= 10  # so that attention is far from uniform
    return decoder


def segments_of(batch: Batch) -> Iterator[tuple[int, slice]]:
    for row, segments in enumerate(batch.input_segments):
        _, lengths = segments.unique_consecutive(return_counts=True)
        ends = lengths.cumsum(0).tolist()
        yield from ((row, slice(start, end)) for start, end in zip([0, *ends], ends, strict=False))


@torch.no_grad()
def states(model: Decoder, batch: Batch, input_ids: Tensor | None = None, *, masked: bool = True) -> Tensor:
    ids = batch.input_ids if input_ids is None else input_ids
    return model.hidden_states(ids, batch.positions, dense_mask(batch.input_segments) if masked else None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_packed_document_has_the_states_of_a_document_alone(packed_run: Path, model: Decoder, layout: str) -> None:
    dataset = PackedDataset.open(packed_run, layout)
    batch = read_batch(dataset, range(12))
    packed = states(model, batch)
    for row, part in segments_of(batch):
        ids = batch.input_ids[row : row + 1, part]
        with torch.no_grad():
            alone = model.hidden_states(ids, torch.arange(ids.shape[1], dtype=torch.int32)[None], None)
        torch.testing.assert_close(packed[row, part], alone[0], rtol=1e-9, atol=1e-9)


def test_without_masking_documents_attend_to_each_other(packed_run: Path, model: Decoder) -> None:
    batch = read_batch(PackedDataset.open(packed_run, "prepend"), range(4))
    row, part = next((row, part) for row, part in segments_of(batch) if part.start > 0)
    changed = batch.input_ids.clone()
    changed[row, 1 : part.start] = (changed[row, 1 : part.start] + 1) % 50

    def moved(*, masked: bool) -> float:
        difference = states(model, batch, masked=masked) - states(model, batch, changed, masked=masked)
        return difference[row, part].abs().max().item()

    assert moved(masked=True) == 0
    assert moved(masked=False) > 1e-3


def test_text_and_padding_never_attend_to_each_other(packed_run: Path) -> None:
    dataset = PackedDataset.open(packed_run, "plain")
    batch = read_batch(dataset, range(len(dataset)))
    padding = batch.input_ids == SPECIAL.pad
    assert padding.any()
    seen = dense_mask(batch.input_segments)[:, 0]
    assert not seen[padding[:, :, None] & ~padding[:, None, :]].any()
    assert not seen[~padding[:, :, None] & padding[:, None, :]].any()
    assert seen.diagonal(dim1=1, dim2=2).all()  # softmax over no key would be NaN


def test_the_mask_by_brute_force() -> None:
    mask = dense_mask(torch.tensor([[0, 0, 1, 1, 2]], dtype=torch.int32))
    assert mask.int().tolist() == [
        [[[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]]
    ]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kind", ["flex", "varlen"])
def test_all_kinds_of_attention_agree(kind: AttentionKind) -> None:
    varlen_on_cpu.register()
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 300, 16, generator=generator)
    key, value = (torch.randn(2, 2, 300, 16, generator=generator) for _ in range(2))
    segments = torch.randint(0, 2, (2, 300), generator=generator, dtype=torch.int32).cumsum(1).div(20).int()
    dense = attend(query, key, value, mask=document_mask(segments, kind="sdpa"))
    other = attend(query, key, value, mask=document_mask(segments, kind=kind))
    torch.testing.assert_close(other, dense, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("layout", ["plain", "append"])
def test_all_kinds_of_attention_give_the_same_loss(packed_run: Path, layout: str) -> None:
    varlen_on_cpu.register()
    batch = read_batch(PackedDataset.open(packed_run, layout), range(6))
    decoder = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER)
    decoder.initialise(seed=1)
    model = SharedModel(decoder, world=World(device=CPU), dtype=torch.float32, parallel="auto")
    kinds: list[AttentionKind] = ["sdpa", "flex", "varlen"]
    losses = [
        validation_losses(model, [batch], arithmetic=Arithmetic(device=CPU, attention=kind)).loss for kind in kinds
    ]
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-6)


def test_the_bounds_of_segments(packed_run: Path) -> None:
    rows = PackedDataset.open(packed_run, "prepend").rows(range(5))
    bounds = segment_bounds(torch.from_numpy(rows.segments[:, :-1].copy()))
    assert bounds.cu_seqlens.tolist() == rows.cu_seqlens().tolist()
    assert bounds.max_length == 48


@pytest.mark.parametrize(
    ("lengths", "bound"), [([500, 1548], 2048), ([1000, 1048], 2048), ([600, 448, 1000], 1024), ([256] * 8, 512)]
)
def test_the_bound_of_the_lengths_is_512_or_the_next_power_of_2(lengths: list[int], bound: int) -> None:
    segments = torch.arange(len(lengths), dtype=torch.int32).repeat_interleave(torch.tensor(lengths))
    bounds = segment_bounds(segments[None])
    assert bounds.max_length == bound >= max(lengths)
    assert bounds.cu_seqlens.diff().tolist() == lengths


@pytest.mark.parametrize(
    ("capability", "is_installed", "error", "expected"),
    [
        ((8, 0), True, None, "a GPU is not of compute capability 9"),
        ((9, 0), False, None, "flash_attn_interface is not installed"),
        ((9, 0), True, ImportError("undefined symbol\nmore"), "undefined symbol"),
        ((9, 0), True, None, None),
    ],
)
def test_flash_attention_3_is_used_where_it_can_be(
    capability: tuple[int, int],
    is_installed: bool,
    error: Exception | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    activated = []

    def activate(name: str) -> None:
        if error is not None:
            raise error
        activated.append(name)

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(attention, "find_spec", lambda name: object() if is_installed else None)
    monkeypatch.setattr(attention, "activate_flash_attention_impl", activate)
    reason = attention.activate_flash_attention_3(torch.device("cuda"))
    assert activated == (["FA3"] if expected is None else [])
    assert reason is None if expected is None else (reason or "").startswith(expected)


@pytest.mark.parametrize(
    ("device", "dtype", "head_size", "capability", "kind"),
    [
        ("cpu", torch.bfloat16, 64, None, "sdpa"),
        ("cuda", torch.bfloat16, 64, (9, 0), "varlen"),
        ("cuda", torch.bfloat16, 64, (7, 0), "flex"),
        ("cuda", torch.bfloat16, 20, (9, 0), "flex"),
        ("cuda", torch.bfloat16, 264, (9, 0), "flex"),
        ("cuda", torch.float32, 64, (9, 0), "flex"),
    ],
)
def test_the_kind_follows_device_dtype_and_heads(  # noqa: PLR0917 - parametrised
    device: str,
    dtype: torch.dtype,
    head_size: int,
    capability: tuple[int, int] | None,
    kind: AttentionKind,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA V100")
    where = torch.device(device)
    assert choose_attention(where, dtype, head_size=head_size) == kind
    assert why_not(kind, where, dtype, head_size=head_size) is None
    assert (why_not("varlen", where, dtype, head_size=head_size) is None) == (kind == "varlen")


@pytest.mark.parametrize("kind", ["varlen", "flex"])
def test_attention_that_a_device_does_not_support_is_refused(packed_run: Path, kind: str) -> None:
    message = f"attention '{kind}': it runs on CUDA only; sdpa runs everywhere, auto selects the fastest"
    with pytest.raises(TrainerError, match=message):
        train(config(attention=kind), name="none", output=packed_run)


def test_one_segment_is_plain_causal_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 20, 8, generator=generator)
    key, value = (torch.randn(1, 2, 20, 8, generator=generator) for _ in range(2))
    masked = attend(query, key, value, mask=dense_mask(torch.zeros(1, 20, dtype=torch.int32)))
    torch.testing.assert_close(masked, attend(query, key, value, mask=None))
