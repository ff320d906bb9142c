from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from colophon.shards.reader import PackedDataset
from colophon.shards.schema import ROLE_NAMES, Role
from colophon.trainer.config import ModelConfig
from colophon.trainer.data.batch import Batch, read_batch
from colophon.trainer.model.attention import dense_mask
from colophon.trainer.model.decoder import Decoder
from colophon.trainer.model.loss import LossTotals, chunked_cross_entropy
from colophon.trainer.parallel import SharedModel, World
from colophon.trainer.step import Arithmetic, accumulate_gradients, validation_losses
from tests.trainer.runs import LAYOUTS, TINY_MODEL, TOKENIZER

CPU = Arithmetic(device=torch.device("cpu"))


def make_model(seed: int = 0) -> Decoder:
    model = Decoder(ModelConfig.model_validate(TINY_MODEL), tokenizer=TOKENIZER)
    model.initialise(seed=seed)
    return model


def alone(model: Decoder) -> SharedModel:
    return SharedModel(model, world=World(device=torch.device("cpu")), dtype=torch.float32, parallel="auto")


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def accumulate(model: Decoder, batch: Batch, *, micro_batch_size: int) -> tuple[LossTotals, dict[str, Tensor]]:
    model.zero_grad()
    sums = accumulate_gradients(alone(model), batch, micro_batch_size=micro_batch_size, arithmetic=CPU)
    totals = sums.losses.totals()
    return totals, gradients(model)


def dense_reference(model: Decoder, dataset: PackedDataset, rows: range) -> tuple[Tensor, dict[Role, list[float]]]:
    """The loss in float64 from the runs alone: each segment through the model by itself, whole logits, labels one by
    one with the weight of their role's name. Also all losses by role."""
    weighted, weight = torch.zeros((), dtype=torch.float64), 0.0
    by_role: dict[Role, list[float]] = {role: [] for role in Role}
    for row in rows:
        file, local = dataset.locate(row)
        ids = torch.from_numpy(file.input_ids[local].astype("int64"))
        roles: list[Role] = []
        starts: list[int] = []
        for length, role, _ in zip(*file.runs(local), strict=True):
            if role in {Role.BOS, Role.PAD}:
                starts.append(len(roles))
            roles += [Role(role)] * int(length)
        for start, end in zip(starts, [*starts[1:], len(roles)], strict=True):
            inputs = ids[start : min(end, len(ids) - 1)]
            if not len(inputs):  # the row's last id is only a label
                continue
            states = model.hidden_states(inputs[None], torch.arange(len(inputs))[None], None)
            logits = (states[0] @ model.output_weight.T)[:, : TOKENIZER.num_ids]
            labels = ids[start + 1 : start + 1 + len(inputs)]
            losses = cross_entropy(logits, labels, reduction="none")
            for loss, role in zip(losses, roles[start + 1 :], strict=False):
                label_weight = dataset.info.role_weights[ROLE_NAMES[role]]
                weighted, weight = weighted + label_weight * loss, weight + label_weight
                by_role[role].append(loss.item())
    return weighted / weight, by_role


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "masked"])
def test_loss_and_gradient_of_every_layout_against_a_dense_float64_reference(packed_run: Path, layout: str) -> None:
    dataset, rows = PackedDataset.open(packed_run, layout), range(7)
    model = make_model()
    totals, found = accumulate(model, read_batch(dataset, rows), micro_batch_size=3)

    reference = make_model().double()
    loss, by_role = dense_reference(reference, dataset, rows)
    loss.backward()  # type: ignore[no-untyped-call]

    assert totals.loss == pytest.approx(loss.item(), rel=1e-6)
    for role in Role:
        assert totals.labels_by_role[role] == len(by_role[role])
        if by_role[role]:
            assert totals.mean(role) == pytest.approx(sum(by_role[role]) / len(by_role[role]), rel=1e-6)
    for name, expected in gradients(reference).items():
        torch.testing.assert_close(
            found[name].double(), expected, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("micro_batch_size", [1, 2, 5])
def test_micro_batches_of_unequal_weight_add_up_to_the_batch(packed_run: Path, micro_batch_size: int) -> None:
    batch = read_batch(PackedDataset.open(packed_run, "append"), range(8))
    batch.loss_weights[:5] *= torch.rand(5, 48, generator=torch.Generator().manual_seed(0)).round()
    batch.loss_weights[2] = 0  # a micro-batch without loss weight
    assert len({part.loss_weights.sum().item() for part in batch.split(micro_batch_size)}) > 1
    model = make_model()
    whole, expected = accumulate(model, batch, micro_batch_size=8)
    parts, found = accumulate(model, batch, micro_batch_size=micro_batch_size)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7)


def test_a_batch_without_loss_weight_has_no_loss_and_no_gradient(packed_run: Path) -> None:
    dataset = PackedDataset.open(packed_run, "masked")
    totals, found = accumulate(make_model(), read_batch(dataset, range(4)), micro_batch_size=2)
    assert totals.loss is None
    assert not found
    text_loss = totals.mean(Role.TEXT)  # still reported
    assert text_loss is not None
    assert 3 < text_loss < 6


@pytest.mark.parametrize("chunk_tokens", [1, 7, 50, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunks_change_neither_loss_nor_gradient(chunk_tokens: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 16, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(64, 16, generator=generator, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 61, (50,), generator=generator)
    loss_weights = torch.rand(50, generator=generator, dtype=dtype)

    labels[::3] = (hidden @ weight.T)[::3, :61].argmax(dim=1)
    expected = cross_entropy((hidden @ weight.T)[:, :61], labels, reduction="none")
    expected_gradients = torch.autograd.grad(3 * (expected * loss_weights).sum(), (hidden, weight))
    total, losses, hits = chunked_cross_entropy(
        hidden,
        weight,
        labels,
        loss_weights,
        impossible_ids=torch.arange(61, 64),
        chunk_tokens=chunk_tokens,
        with_hits=True,
    )
    assert hits is not None
    assert torch.equal(hits, (hidden @ weight.T)[:, :61].argmax(dim=1) == labels)
    assert hits[::3].all()
    assert not hits.all()
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(total, (expected * loss_weights).sum())
    found = torch.autograd.grad(3 * total, (hidden, weight))
    for gradient, expected_gradient in zip(found, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)
    assert (found[1][61:] == 0).all()  # ids that do not exist


def test_bfloat16_gives_about_the_same_loss_and_float32_gradients(packed_run: Path) -> None:
    batch = read_batch(PackedDataset.open(packed_run, "prepend"), range(8))
    model = make_model()
    exact, expected = accumulate(model, batch, micro_batch_size=4)
    model.zero_grad()
    sums = accumulate_gradients(
        alone(model),
        batch,
        micro_batch_size=4,
        arithmetic=Arithmetic(device=torch.device("cpu"), dtype=torch.bfloat16),
    )
    totals = sums.losses.totals()
    assert totals.loss == pytest.approx(exact.loss, rel=1e-2)
    assert totals.loss != exact.loss
    for name, gradient in gradients(model).items():
        assert gradient.dtype == torch.float32
        assert nn.functional.cosine_similarity(gradient.flatten(), expected[name].flatten(), dim=0) > 0.99


def test_validation_leaves_no_gradient_and_agrees_with_training(packed_run: Path) -> None:
    batch = read_batch(PackedDataset.open(packed_run, "prepend"), range(8))
    model = make_model()
    validated = validation_losses(alone(model), batch.split(3), arithmetic=CPU)
    assert not gradients(model)
    trained, _ = accumulate(model, batch, micro_batch_size=8)
    assert validated.mean(Role.TEXT) == pytest.approx(trained.mean(Role.TEXT), rel=1e-6)
    assert validated.tokens == trained.tokens


def test_accuracy_of_metadata_by_brute_force(packed_run: Path) -> None:
    batch = read_batch(PackedDataset.open(packed_run, "append"), range(8))
    model = make_model()
    states = model.hidden_states(batch.input_ids, batch.positions, dense_mask(batch.input_segments))
    most_probable = model.logits(states).argmax(dim=-1)
    is_metadata = batch.label_roles == Role.METADATA
    # In every second document the labels become the predictions; labels are inputs too, so it predicts again.
    predicted = torch.where(is_metadata & (batch.input_segments % 2 == 0), most_probable, batch.labels)
    batch.tokens[:, 1:] = predicted.to(batch.tokens.dtype)
    states = model.hidden_states(batch.input_ids, batch.positions, dense_mask(batch.input_segments))
    expected = (is_metadata & (batch.labels == model.logits(states).argmax(dim=-1))).sum().item()
    totals = validation_losses(alone(model), batch.split(3), arithmetic=replace(CPU, with_hits=True))
    assert totals.hits_by_role[Role.METADATA] == expected > 0
    assert totals.accuracy(Role.METADATA) == expected / is_metadata.sum().item()
    assert totals.accuracy(Role.META_TOKEN) is None


def test_without_document_masking_a_row_is_one_text(packed_run: Path) -> None:
    batch = read_batch(PackedDataset.open(packed_run, "plain"), range(6))
    assert (batch.segments[:, -1] > 0).any()
    model = make_model()
    for parameter in model.parameters():
        parameter.data *= 3  # so that the mask and the positions make a difference
    losses = {
        masked: validation_losses(alone(model), batch.split(2), arithmetic=replace(CPU, document_masking=masked)).loss
        for masked in (True, False)
    }
    with torch.no_grad():
        states = model.hidden_states(batch.input_ids, torch.arange(48).expand(6, -1), None)
        logits = (states @ model.output_weight.T)[..., : TOKENIZER.num_ids]
        expected = cross_entropy(logits.transpose(1, 2), batch.labels, reduction="none")
    weighted = (expected * batch.loss_weights).sum() / batch.loss_weights.sum()
    assert losses[False] == pytest.approx(weighted.item(), rel=1e-5)
    assert losses[True] != pytest.approx(weighted.item(), rel=1e-4)
