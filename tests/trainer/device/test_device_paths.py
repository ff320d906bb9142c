"""The device paths that can be tested without a GPU: operators, compiled graphs, memory, order of copies."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._inductor.utils import run_and_get_code
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from colophon.shards.schema import SpecialIds, TokenizerInfo
from colophon.trainer.config import ModelConfig, TrainConfig
from colophon.trainer.data import training_data
from colophon.trainer.data.batch import BatchBuffer
from colophon.trainer.data.training_data import TrainingData
from colophon.trainer.model import attention as attention_module
from colophon.trainer.model import decoder as decoder_module
from colophon.trainer.model import loss as loss_module
from colophon.trainer.model.attention import SegmentBounds, attend, document_mask
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.optimization.optimizer import ModelOptimizer
from tests.trainer.runs import TINY_MODEL, TOKENIZER, config

# Warnings of torch's compiler itself.
pytestmark = [
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.filterwarnings(
        "ignore:.*torch.jit.script_method:DeprecationWarning", "ignore:The .grad attribute", "ignore:.*lru_cache"
    ),
]

ROWS, LENGTH = 2, 128


def segments_with(density: float, *, seed: int = 0) -> Tensor:
    """int32 [ROWS, LENGTH]: a segment begins at a token with probability `density`."""
    begins = torch.rand(ROWS, LENGTH, generator=torch.Generator().manual_seed(seed)) < density
    return begins.int().cumsum(1).int()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_torchs_varlen_operator_gives_the_output_and_gradients_of_a_dense_mask(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(ROWS, heads, LENGTH, 16, generator=generator) for heads in (4, kv_heads, kv_heads)]
    upstream = torch.randn(ROWS, 4, LENGTH, 16, generator=generator)
    found = {}
    for kind in ("sdpa", "varlen"):
        inputs = [each.clone().requires_grad_() for each in states]
        out = attend(*inputs, mask=document_mask(segments_with(0.05), kind=kind))
        found[kind] = [out, *torch.autograd.grad(out, inputs, upstream)]
    for one, other in zip(found["varlen"], found["sdpa"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_are_compiled_once_whatever_the_number_of_segments(
    checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, losses = CompileCounter(), CompileCounter()
    settings = ModelConfig.model_validate({**TINY_MODEL, "num_layers": 12})  # more than the versions that dynamo keeps
    model = Decoder(settings, tokenizer=TOKENIZER, activation_checkpointing=checkpointing)
    model.initialise(seed=0)
    model.compiled = "layers"
    for layer in model.layers:
        layer.compile(dynamic=False, fullgraph=True, backend=layers)
    of_logits = torch.compile(loss_module._losses_and_errors, dynamic=False, fullgraph=True, backend=losses)
    monkeypatch.setattr(loss_module, "_compiled_losses_and_errors", lambda: of_logits)
    ids = torch.randint(0, 50, (ROWS, LENGTH))
    positions = torch.arange(LENGTH, dtype=torch.int32).expand(ROWS, LENGTH)
    counts = set()
    for density in (0.01, 0.05, 0.3, 0.0):
        mask = document_mask(segments_with(density), kind="varlen")
        assert isinstance(mask, SegmentBounds)
        counts.add(len(mask.cu_seqlens))
        model(ids, positions, mask, ids, torch.ones(ROWS, LENGTH), dtype=torch.bfloat16).weighted.backward()
    assert len(counts) == 4
    assert (layers.frame_count, losses.frame_count) == (1, 1)


def test_flex_attention_is_one_graph_for_all_micro_batches_and_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    def attend_as_on_a_gpu(query: Tensor, key: Tensor, value: Tensor, *, mask: Any) -> Tensor:
        attended: Tensor = attention_module._compiled_flex_attention()(
            query, key, value, block_mask=mask, enable_gqa=True
        )
        return attended

    monkeypatch.setattr(decoder_module, "attend", attend_as_on_a_gpu)
    counter = CompileCounter()
    model = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER)
    for layer in model.layers:
        layer.compile(dynamic=False, fullgraph=True, backend=counter)
    ids = torch.randint(0, 50, (ROWS, LENGTH))
    positions = torch.arange(LENGTH, dtype=torch.int32).expand(ROWS, LENGTH)
    with torch.no_grad():
        for density in (0.01, 0.1, 0.3):
            model.hidden_states(ids, positions, document_mask(segments_with(density), kind="flex"))
    assert counter.frame_count == 1


def test_the_compiled_loss_keeps_no_float32_tensor_as_wide_as_the_vocabulary() -> None:
    logits, labels = torch.randn(32, 4096, dtype=torch.bfloat16), torch.randint(0, 4096, (32,))
    logits[:, 4000:], labels[3] = float("-inf"), 4001
    compiled = torch.compile(loss_module._losses_and_errors, dynamic=False)
    found, (code,) = run_and_get_code(compiled, logits, labels, torch.float32, True)
    expected = loss_module._losses_and_errors(logits.clone(), labels, torch.float32, True)
    assert found[0][3].isinf()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-6)
    buffers = re.findall(r"= empty_strided_cpu\(\((\d+), (\d+)\), \([\d, ]+\), torch\.(\w+)\)", code)
    assert [dtype for _, width, dtype in buffers if width == "4096"] == ["bfloat16"]  # the gradients alone


def paper_tokenizer(num_ids: int) -> TokenizerInfo:
    special = SpecialIds(bos=num_ids - 5, eos=num_ids - 4, pad=num_ids - 3, boc=num_ids - 2, eoc=num_ids - 1)
    return TokenizerInfo(name="-", sha256="0" * 64, num_base_ids=num_ids - 5, num_ids=num_ids, special=special)


def fake_micro_batch(model: Decoder, *, rows: int, length: int) -> None:
    """Forward and backward on tensors without memory, in bfloat16 as on a GPU."""
    ids, weights = torch.zeros(rows, length, dtype=torch.int64), torch.ones(rows, length)
    positions = torch.zeros(rows, length, dtype=torch.int32)
    mask = SegmentBounds(torch.zeros(8 * rows + 1, dtype=torch.int32), max_length=length)
    found = model.forward(ids, positions, mask, ids, weights, dtype=torch.bfloat16)
    torch.autograd.backward(found.weighted)


@pytest.mark.parametrize("preset", ["124m", "1.5b"])
def test_operations_a_token_are_those_of_the_matrix_products_that_run(preset: str) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = Decoder(ModelConfig.model_validate(preset), tokenizer=paper_tokenizer(50_304))
        with FlopCounterMode(display=False) as counter:
            fake_micro_batch(model, rows=1, length=2048)
    products = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op))
    attention = 6 * model.config.num_layers * model.config.hidden_size * 2048
    assert products / 2048 == pytest.approx(model.flops_per_token(2048) - attention, rel=1e-3)


@pytest.mark.slow
def test_eight_sequences_of_4096_of_the_papers_model_fit_one_gpu() -> None:
    """Not compiled, which stores more; internal memory of attention and matrix products is not counted."""
    from torch.distributed._tools.mem_tracker import MemTracker

    settings = TrainConfig.model_validate({"layout": "-", "model": "1.5b", "steps": 10, "batch_size": 8})
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = Decoder(settings.model, tokenizer=paper_tokenizer(131_136))
        optimizer, tracker = ModelOptimizer(model, settings), MemTracker()
        tracker.track_external(model)
        with tracker:
            for _ in range(2):
                optimizer.zero_grad()
                fake_micro_batch(model, rows=8, length=4096)
                tracker.reset_mod_stats()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step(1e-4)
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"] / 2**30
    assert 4 * 4 * model.num_parameters / 2**30 < peak < 100  # of 139


def test_bounds_are_computed_where_the_segments_are() -> None:
    """Reading them from a device would wait for all operations queued there, once per micro-batch."""
    mask = document_mask(segments_with(0.1), kind="varlen", device=torch.device("meta"))
    assert isinstance(mask, SegmentBounds)
    assert mask.cu_seqlens.device.type == "meta"


def test_a_buffer_is_filled_again_only_after_its_copies_are_done(
    packed_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Copies:
        """An event after copies that end when the test sets `done`."""

        def __init__(self) -> None:
            self.done, self.waited = threading.Event(), threading.Event()
            recorded.append(self)

        def synchronize(self) -> None:
            self.waited.set()
            assert self.done.wait(30)

    recorded: list[Copies] = []
    monkeypatch.setattr(training_data, "_recorded_event", Copies)
    buffer = BatchBuffer

    def pageable(*args: Any, pin: bool, **options: Any) -> BatchBuffer:
        return buffer(*args, **options)  # page-locked memory needs a GPU

    monkeypatch.setattr(training_data, "BatchBuffer", pageable)
    data = TrainingData(config("plain"), output=packed_run)
    batches = data.batches(1, pin=True)
    batch = next(batches)
    assert len(recorded) == 1  # the second buffer has not been used yet
    recorded[0].done.set()
    seen = batch.tokens.clone()
    assert torch.equal(seen, data.batch(1).tokens)
    second = next(batches)  # the first batch's copies are queued, not done
    assert recorded[1].waited.wait(30)
    assert torch.equal(batch.tokens, seen)
    recorded[1].done.set()
    third = next(batches)
    recorded[2].done.set()
    assert third.tokens.data_ptr() == batch.tokens.data_ptr() != second.tokens.data_ptr()
    assert torch.equal(third.tokens, data.batch(3).tokens)
    batches.close()
