"""How much attention the tokens of a text pay to what stands before it, by layer and head.

Each document is a row of its own: bos, wrapper with its metadata or meta tokens, and the beginning of the text. Of the
attention that a text token pays, 1 in all, the mass on each part is summed; masses are averaged over a document's text
tokens and then over documents. Beside them stands what the parts would get if each token attended evenly to all that it
sees: a part of many tokens gets much without being looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import MetaTokensLayout
from colophon.trainer.attention import attend
from colophon.trainer.attention_maps.bins import NUM_TOKENS, BinReport, compare_bins
from colophon.trainer.attention_maps.parts import LabelledRows, Vocabulary, columns_of, labelled_rows
from colophon.trainer.data.annotation_compatibility import check_annotations
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.bootstrap import Estimate, RatioDraws
from colophon.trainer.evaluation.document_crops import RunDocuments
from colophon.trainer.inference.contexts import TrainedLayout, layout_of, outputs_by_layout, trained_layout
from colophon.trainer.inference.padding import padded_batches
from colophon.trainer.inference.trained_model import TrainedModel, untrained
from colophon.trainer.model import Attend, Decoder, row_positions
from colophon.trainer.plots.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

See = Callable[[int, Tensor], None]

_PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PartReport:
    """One part of what a text token sees."""

    part: str
    tokens: float
    """Of it, a document in the mean."""
    uniform: float
    """Its mass if each text token attended evenly to all that it sees."""
    mass: Estimate
    """Over all layers and heads."""
    by_layer: list[Estimate]
    by_head: list[list[float]]
    """[num_layers][num_heads]"""


@dataclass(frozen=True, kw_only=True)
class AttentionReport:
    """What `study_attention` found; `training/<name>/attention.json`."""

    name: str
    step: int
    layout: str
    documents: int
    left_out: dict[str, int]
    crop: int
    seed: int
    parts: list[PartReport]
    """Their masses sum to 1."""
    bins: BinReport | None
    """For meta tokens and a column: whether documents of one bin have like vectors of attention."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the keys are the fields of the classes."""
        return asdict(self)


def study_attention(
    trained: TrainedModel,
    *,
    output: Path,
    documents_output: Path | None = None,
    tokenizer: Vocabulary,
    layout: str | None = None,
    column: str | None = None,
    num_documents: int = 200,
    crop: int = 256,
    seed: int = 0,
) -> AttentionReport:
    """Measure the attention that texts pay to what stands before them.

    Weights are computed whole: a row of L tokens takes layers x heads x L² numbers, one layer at a time.

    Args:
        trained: the model.
        output: the `output.path` of its recipe.
        documents_output: that of another run with the same tokenizer, whose documents to read; None: the same.
        tokenizer: the one that the run was packed with.
        layout: what stands before the text, of those that the model was trained on in any phase; None: the one that
            it was validated on.
        column: an annotation column whose values are the bins that meta tokens are compared by.
        num_documents: to draw.
        crop: text tokens of each, from its start.
        seed: of the draw, the intervals and the permutations.

    Raises:
        ShardError: the run has no documents or no such layout, or files that do not fit their records.
        TrainerError: a layout that the model was not trained on (those that it was are listed), that has nothing before
            the text, or no meta tokens and yet a column; no such column (the choices are listed); documents of another
            tokenizer, without metadata, or with metadata of other annotators than the training's.
    """
    shown = _layout(trained, layout, output=output)
    needed = columns_of(shown)
    is_meta = isinstance(shown.layout, MetaTokensLayout)
    if column is not None and not is_meta:
        raise TrainerError(f"layout {shown.name!r} has no meta tokens whose attention could be compared by {column}")
    run = RunDocuments(documents_output or output)
    run.check_tokenizer(trained.tokenizer)
    if shown.output is not None:
        check_annotations(needed, trained=shown.output, other=run.output)
    crops = run.crops(
        count=num_documents,
        crop=crop,
        seed=seed,
        columns=list(dict.fromkeys([*needed, *([] if column is None else [column])])),
        tokenizer=trained.tokenizer,
        decode=tokenizer.decode,
    )
    rows = labelled_rows(shown, crops.columns, num_documents=len(crops), tokenizer=tokenizer)
    if not len(rows.kept):
        raise TrainerError(f"none of {len(crops)} documents has metadata for layout {shown.name!r}")
    texts = [crops.text[document] for document in rows.kept]
    seen = attention_masses(trained, rows, texts)
    bins = None
    if column is not None:
        vectors = meta_token_attention(trained, rows, texts)
        before = meta_token_attention(untrained(trained), rows, texts)
        bins = compare_bins(vectors, before, crops.columns[column], column_name=column, seed=seed)
    return AttentionReport(
        name=trained.name,
        step=trained.state.step,
        layout=shown.name,
        documents=len(rows.kept),
        left_out=rows.left_out,
        crop=crop,
        seed=seed,
        parts=_part_reports(rows, seen, seed=seed),
        bins=bins,
    )


def _layout(trained: TrainedModel, name: str | None, *, output: Path) -> TrainedLayout:
    if name is None:
        return layout_of(trained.config, output=output)
    known = outputs_by_layout(trained.config, output=output)
    if name not in known:
        raise TrainerError(f"{trained.name} was not trained on layout {name!r}; it was on {', '.join(known)}")
    return trained_layout(known[name], name)


@dataclass(frozen=True, kw_only=True)
class AttentionMasses:
    """Of `n` documents and `k` parts."""

    mass: NumPyArray
    """float32 [n, num_layers, num_heads, k]; sums to 1 over parts."""
    uniform: NumPyArray
    """float32 [n, k]: if each text token attended evenly to all that it sees; sums to 1."""
    tokens: NumPyArray
    """int64 [n, k]: how many tokens each part has."""


def attention_masses(trained: TrainedModel, rows: LabelledRows, texts: Sequence[NumPyArray]) -> AttentionMasses:
    """The attention of text tokens on each part, averaged over the text tokens of a document.

    Args:
        trained: the model.
        rows: what stands before each text.
        texts: ids of each, at least one.
    """
    config, num_parts = trained.model.config, len(rows.part_names)
    mass = np.zeros((len(texts), config.num_layers, config.num_heads, num_parts), np.float32)
    uniform = np.zeros((len(texts), num_parts), np.float32)
    tokens = np.zeros((len(texts), num_parts), np.int64)
    for batch, input_ids, parts, is_text in _batches(trained, rows, texts):
        of_part = (parts[:, :, None] == torch.arange(num_parts, device=parts.device)).float()  # padding is of none
        share = is_text.float() / is_text.sum(dim=1, keepdim=True)
        seen = of_part.cumsum(dim=1) / torch.arange(1, parts.shape[1] + 1, device=parts.device)[:, None]
        uniform[batch] = torch.einsum("bq,bqp->bp", share, seen).cpu().numpy()
        tokens[batch] = of_part.sum(dim=1).long().cpu().numpy()

        def see(
            layer: int, weights: Tensor, share: Tensor = share, of_part: Tensor = of_part, batch: NumPyArray = batch
        ) -> None:
            received = torch.einsum("bq,bhqk->bhk", share, weights)
            mass[batch, layer] = torch.einsum("bhk,bkp->bhp", received, of_part).cpu().numpy()

        watch_attention(trained.model, input_ids, see, dtype=trained.dtype)
    return AttentionMasses(mass=mass, uniform=uniform, tokens=tokens)


def meta_token_attention(
    trained: TrainedModel, rows: LabelledRows, texts: Sequence[NumPyArray], *, num_tokens: int = NUM_TOKENS
) -> list[NumPyArray | None]:
    """float32 [num_tokens * num_meta_tokens] a document: what its first text tokens pay to each meta token in the last
    layer, averaged over heads; None for documents of fewer text tokens."""
    long_enough = [i for i, text in enumerate(texts) if len(text) >= num_tokens]
    found: list[NumPyArray | None] = [None] * len(texts)
    chosen = [texts[i][:num_tokens] for i in long_enough]
    some = LabelledRows(
        part_names=rows.part_names,
        prefixes=[rows.prefixes[i] for i in long_enough],
        parts=[rows.parts[i] for i in long_enough],
        kept=rows.kept[long_enough],
        left_out={},
    )
    last = trained.model.config.num_layers - 1
    for batch, input_ids, _, is_text in _batches(trained, some, chosen):
        start = int(is_text[0].long().argmax())  # the same in every row: all have the same meta tokens before the text
        vectors: list[Tensor] = []

        def see(layer: int, weights: Tensor, start: int = start, vectors: list[Tensor] = vectors) -> None:
            if layer == last:
                vectors.append(weights[:, :, start:, 2 : start - 1].mean(dim=1).flatten(1))

        watch_attention(trained.model, input_ids, see, dtype=trained.dtype)
        for number, vector in zip(batch, vectors[0].cpu().numpy(), strict=True):
            found[long_enough[number]] = vector
    return found


@torch.no_grad()
def watch_attention(model: Decoder, input_ids: Tensor, see: See, *, dtype: torch.dtype | None = None) -> Tensor:
    """Last states of rows that are one segment each; `see` gets each layer's number and attention weights.

    Args:
        model: whose attention to watch.
        input_ids: int64 [b, L], on the model's device.
        see: called for each layer with float32 [b, heads, L, L], queries before keys.
        dtype: of the activations; None: that of the weights.
    """

    def watched(layer: int) -> Attend:
        def attends(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            see(layer, attention_weights(query, key))
            return attend(query, key, value, mask=None)

        return attends

    masks = [watched(layer) for layer in range(len(model.layers))]
    return model.hidden_states(input_ids, row_positions(input_ids), masks, dtype=dtype)


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """float32 [b, heads, L, L]: softmax of q·k / sqrt(head_size) over the keys that a causal query sees.

    Args:
        query: [b, heads, L, head_size].
        key: [b, kv_heads, L, head_size]; each serves heads / kv_heads heads that follow each other.
    """
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query.float() @ key.float().transpose(-1, -2) / math.sqrt(query.shape[-1])
    unseen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(unseen, -math.inf).softmax(dim=-1)


def draw_attention(report: AttentionReport) -> Figure:
    """A heat map for each part: attention of each head of each layer as a multiple of an even one, on a log scale.

    Raises:
        TrainerError: matplotlib is not installed.
    """
    parts = report.parts
    columns = min(len(parts), 4)
    num_rows = -(-len(parts) // columns)
    with new_figure(width=1.2 + 2.3 * columns, height=1.1 + 2.3 * num_rows) as figure:
        grid = figure.subplots(num_rows, columns, squeeze=False, sharex=True, sharey=True)
        panels = grid.ravel()
        for axes in panels[len(parts) :]:
            axes.set_visible(False)
        ratios = [np.log2(np.maximum(part.by_head, 1e-9) / max(part.uniform, 1e-9)) for part in parts]
        limit = min(4, max(1, math.ceil(max(float(np.abs(ratio).max()) for ratio in ratios))))
        images = []
        for axes, part, ratio in zip(panels, parts, ratios, strict=False):
            images.append(axes.imshow(ratio, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto", origin="lower"))
            axes.set_title(f"{part.part}\n{part.mass.value:.1%} (evenly {part.uniform:.1%})")
            axes.set_xticks(*_ticks(len(part.by_head[0])))
            axes.set_yticks(*_ticks(len(part.by_head)))
            axes.spines[:].set_visible(True)
        for row in grid:
            row[0].set_ylabel("layer")
        for axes in panels[max(0, len(parts) - columns) : len(parts)]:
            axes.set_xlabel("head")
            axes.tick_params(labelbottom=True)
        bar = figure.colorbar(images[-1], ax=grid, extend="both", shrink=0.8, ticks=range(-limit, limit + 1))
        bar.set_ticklabels([f"1/{2**-power}" if power < 0 else f"{2**power}" for power in range(-limit, limit + 1)])
        bar.set_label("attention, as a multiple of an even one")
        figure.suptitle(
            f"{report.name}, step {report.step:,}, layout {report.layout}: where text tokens look "
            f"({report.documents} documents)"
        )
        return figure


def _ticks(count: int) -> tuple[list[int], list[str]]:
    """Places and names, from 1, of at most nine of `count` layers or heads."""
    places = list(range(0, count, -(-count // 9)))
    return places, [str(place + 1) for place in places]


def _batches(
    trained: TrainedModel, rows: LabelledRows, texts: Sequence[NumPyArray]
) -> Iterator[tuple[NumPyArray, Tensor, Tensor, Tensor]]:
    """Documents of each batch int64 [b], and on the device ids int64 [b, L], parts int64 [b, L] (-1 behind a row's end)
    and which are text tokens, bool [b, L]."""
    whole = [np.concatenate([prefix, text]) for prefix, text in zip(rows.prefixes, texts, strict=True)]
    text_part = len(rows.part_names) - 1
    for batch, input_ids, lengths in padded_batches(whole, max_size=_PAIRS_AT_ONCE, cost=2):
        parts = np.full(input_ids.shape, -1, np.int64)
        for row, number, length in zip(parts, batch, lengths.tolist(), strict=True):
            before = rows.parts[number]
            row[: len(before)], row[len(before) : length] = before, text_part
        on_device = torch.from_numpy(parts).to(trained.device)
        yield batch, input_ids.to(trained.device), on_device, on_device == text_part


def _part_reports(rows: LabelledRows, seen: AttentionMasses, *, seed: int) -> list[PartReport]:
    num_documents, num_layers, _, num_parts = seen.mass.shape
    by_layer = seen.mass.mean(axis=2).transpose(2, 1, 0)  # [parts, layers, documents]
    amounts = np.concatenate([by_layer.mean(axis=1), by_layer.reshape(-1, num_documents)])
    draws = RatioDraws(amounts, np.ones((1, num_documents)), seed=seed)
    by_head = seen.mass.mean(axis=0, dtype=np.float64)
    return [
        PartReport(
            part=name,
            tokens=float(seen.tokens[:, part].mean()),
            uniform=float(seen.uniform[:, part].mean(dtype=np.float64)),
            mass=draws.ratio(part, 0),
            by_layer=[draws.ratio(num_parts + part * num_layers + layer, 0) for layer in range(num_layers)],
            by_head=by_head[:, :, part].tolist(),
        )
        for part, name in enumerate(rows.part_names)
    ]
