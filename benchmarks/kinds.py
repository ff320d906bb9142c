"""Measures scoring with every kind of fastText model beside the library: `python -m benchmarks.kinds [--rounds N]`.

Each kind is a small model, trained on the spot by the library; the kernel and the library score the same texts in turn,
and their probabilities are compared. Seconds are CPU time of one thread: other processes disturb them less.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fasttext
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.machine import machine
from benchmarks.summary import Spread
from benchmarks.workload import SHARED, find_input, labelled
from colophon.annotators.fasttext.model import FastTextModel, encode_label
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.fasttext.training.classifier import train_classifier
from colophon.annotators.fasttext.training.settings import MIN_THREADS, TrainingSettings

RESULTS = Path(__file__).parent / "results" / "kinds.json"
METHOD = (
    "Models are trained on the first file of the input, on the first 4,000 characters of each text, with few epochs: "
    "their size and kind matter, not their quality. Texts for measuring are others. In every round the kernel "
    "(`FastTextModel.probabilities` on slices of 1,024 texts, all labels) and the library (`predict` with k=1, on "
    "ready Python strings) score all texts of a language group. A difference is the largest one of any label's "
    "probability to the library's, less the 1e-5 that it adds to each (not for hierarchical softmax, where both have "
    "1e-5 for each node). A top label differs if the library gives it more than 1e-6 less than its own top label."
)
_TRAINED_CHARS = 4000
_SLICE_ROWS = 1024
_LIBRARY_OFFSET = 1e-5


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of model: its loss, features and size."""

    name: str
    title: str
    labels: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    quantized: Mapping[str, Any] | None = None
    """Options of the library's `quantize`; None: not quantized."""


_CHARS = {"min_chars": 3, "max_chars": 6, "epoch": 1}
_PRUNED = {"cutoff": 50_000, "qnorm": True}
KINDS = (
    Kind(name="softmax_2", title="softmax, 2 labels", labels=2, settings={"loss": "softmax"}),
    Kind(
        name="softmax_14_trigrams",
        title="softmax, 14 labels, trigrams",
        labels=14,
        settings={"loss": "softmax", "word_ngrams": 3},
    ),
    Kind(name="ova_2", title="one-versus-all, 2 labels", labels=2),
    Kind(name="ova_5", title="one-versus-all, 5 labels", labels=5),
    Kind(name="ova_14", title="one-versus-all, 14 labels", labels=14),
    Kind(name="ova_14_words", title="one-versus-all, 14 labels, words only", labels=14, settings={"word_ngrams": 1}),
    Kind(
        name="ova_14_large",
        title="one-versus-all, 14 labels, 100 dimensions, 2,000,000 buckets",
        labels=14,
        settings={"dim": 100, "buckets": 2_000_000, "epoch": 1},
    ),
    Kind(name="hs_14", title="hierarchical softmax, 14 labels", labels=14, settings={"loss": "hs"}),
    Kind(name="ns_14", title="negative sampling, 14 labels", labels=14, settings={"loss": "ns"}),
    Kind(name="ova_14_quantized", title="one-versus-all, 14 labels, quantized", labels=14, quantized={}),
    Kind(name="ova_14_pruned", title="one-versus-all, 14 labels, pruned", labels=14, quantized=_PRUNED),
    Kind(name="softmax_300", title="softmax, 300 labels", labels=300, settings={"loss": "softmax"}),
    Kind(name="ova_300", title="one-versus-all, 300 labels", labels=300, settings={"epoch": 1}),
    Kind(
        name="softmax_300_quantized",
        title="softmax, 300 labels, both matrices quantized",
        labels=300,
        settings={"loss": "softmax"},
        quantized={"qnorm": True, "qout": True},
    ),
    Kind(name="softmax_2_chars", title="softmax, 2 labels, subwords", labels=2, settings={"loss": "softmax", **_CHARS}),
    Kind(name="ova_14_chars", title="one-versus-all, 14 labels, subwords", labels=14, settings=_CHARS),
    Kind(
        name="ova_14_chars_pruned",
        title="one-versus-all, 14 labels, subwords, pruned",
        labels=14,
        settings=_CHARS,
        quantized=_PRUNED,
    ),
    Kind(
        name="hs_80_chars",
        title="hierarchical softmax, 80 labels, 16 dimensions, subwords (as lid.176)",
        labels=80,
        settings={"loss": "hs", "dim": 16, "word_ngrams": 1, "min_chars": 2, "max_chars": 4},
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kinds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=5.0, help="text of each language group")
    parser.add_argument("--work", type=Path, default=Path("out/bench"), help="models (default: out/bench)")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a kind; repeatable")
    options = parser.parse_args(arguments)
    name, files = find_input([], work=options.work, log=_say)
    groups = {name: spread_texts(files[-1:], megabytes=options.megabytes)}
    if others := sorted((SHARED / "multilingual").glob("*.parquet")):
        groups["multilingual"] = spread_texts(others, megabytes=options.megabytes)
    chosen = [kind for kind in KINDS if not options.only or kind.name in options.only]
    result = run(chosen, groups, files[0], rounds=options.rounds, work=options.work / "kinds")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {options.output}")
    return 0


def run(
    kinds: Sequence[Kind], groups: Mapping[str, pa.Array], training_file: Path, *, rounds: int, work: Path
) -> dict[str, Any]:
    """Train each kind if its model is missing, and measure it; return the content of `kinds.json`.

    Args:
        kinds: models to measure.
        groups: texts by the name of their group.
        training_file: Parquet with `text`, `url`, and better `topic`.
        rounds: number of repetitions.
        work: directory of the models.
    """
    work.mkdir(parents=True, exist_ok=True)
    measured = {}
    for kind in kinds:
        measured[kind.name] = _measured(kind, _model(kind, training_file, work), groups, rounds=rounds)
        _say(f"{kind.title}: {_in_words(measured[kind.name])}")
    return {
        "format": 1,
        "method": METHOD,
        "machine": machine(),
        "rounds": rounds,
        "text_bytes": {group: _size(texts) for group, texts in groups.items()},
        "documents": {group: len(texts) for group, texts in groups.items()},
        "kinds": measured,
    }


def spread_texts(files: Sequence[Path], *, megabytes: float) -> pa.Array:
    """Return about so many megabytes of text, spread evenly over the files."""
    texts = pa.concat_tables(pq.read_table(file, columns=["text"]) for file in files)["text"].combine_chunks()
    step = max(_size(texts) / 1e6 / megabytes, 1.0)
    return texts.take(pa.array((np.arange(int(len(texts) / step)) * step).astype(np.int64)))


def _model(kind: Kind, file: Path, directory: Path) -> Path:
    path = directory / f"{kind.name}.{'bin' if kind.quantized is None else 'ftz'}"
    if path.is_file():
        return path
    _say(f"training {kind.name}")
    texts, labels = _labelled(kind, file)
    plain = directory / f"{kind.name}.bin"
    settings = {"epoch": 2, **kind.settings}
    if settings.get("loss") == "ns":  # which `train_classifier` does not offer
        options = {"loss": "ns", "dim": 50, "epoch": 2, "wordNgrams": 2, "bucket": 1 << 18, "thread": MIN_THREADS}
        lines = _lines(texts, labels, directory / "lines.txt")
        fasttext.train_supervised(lines, verbose=0, **options).save_model(str(plain))
    else:
        train_classifier(
            texts, labels, output=plain, normalize=TextPreparation(), settings=TrainingSettings(**settings)
        )
    if kind.quantized is not None:
        model = fasttext.load_model(str(plain))
        model.quantize(_lines(texts, labels, directory / "lines.txt"), verbose=0, **kind.quantized)
        model.save_model(str(path))
    return path


def _labelled(kind: Kind, file: Path) -> tuple[pa.Array, pa.Array]:
    """Texts and labels of a kind: topics, or the most frequent places on the web where many labels are needed."""
    if kind.labels <= 24:
        texts, labels = labelled("topic", [str(file)], num_topics=kind.labels)
    else:
        table = pq.read_table(file, columns=["text", "url"])
        texts = table["text"].combine_chunks()
        places = pa.array([_place(url or "") for url in table["url"].to_pylist()])
        counts = sorted(places.value_counts().to_pylist(), key=lambda row: (-row["counts"], row["values"]))
        kept = pa.array([row["values"] for row in counts[: kind.labels - 1]], pa.string())
        labels = pc.if_else(pc.is_in(places, kept), places, "other")
    return pc.utf8_slice_codeunits(texts, 0, _TRAINED_CHARS), labels


def _place(url: str) -> str:
    parts = urlsplit(url)
    return "/".join([parts.hostname or "", *parts.path.split("/")[1:3]])


def _lines(texts: pa.Array, labels: pa.Array, path: Path) -> str:
    pairs = zip(labels.to_pylist(), texts.to_pylist(), strict=True)
    rows = [f"{encode_label(label)} {' '.join(text.split())}\n" for label, text in pairs if label and text]
    path.write_text("".join(rows), encoding="utf-8")
    return str(path)


def _measured(kind: Kind, path: Path, groups: Mapping[str, pa.Array], *, rounds: int) -> dict[str, Any]:
    model, library = FastTextModel(path), fasttext.load_model(str(path))
    # Builds or maps the tables, and compiles the path of most texts and that of very long ones.
    model.probabilities(pa.array(["a word", "a word " * 60_000]))
    return {
        "title": kind.title,
        "loss": model.header.loss,
        "labels": len(model.header.labels),
        "dim": model.header.dim,
        "bytes": model.header.file_bytes,
        "collapsed": model.header.is_collapsed,
        "groups": {group: _compared(model, library, texts, rounds=rounds) for group, texts in groups.items()},
    }


def _compared(model: FastTextModel, library: Any, texts: pa.Array, *, rounds: int) -> dict[str, Any]:
    lines = [text.replace("\n", " ") + "\n" for text in texts.to_pylist()]
    seconds: dict[str, list[float]] = {"kernel": [], "library": []}
    for turn in range(rounds):
        copied = pa.array(texts.to_pylist(), texts.type)  # at the same address, the kernel reuses words it has split
        for name in ("kernel", "library") if turn % 2 == 0 else ("library", "kernel"):
            begun = time.thread_time()
            if name == "kernel":
                for rows in _scored(model, copied):
                    del rows
            else:
                for line in lines:
                    library.f.predict(line, 1, 0.0, "strict")
            seconds[name].append(time.thread_time() - begun)
    size = _size(texts) / 1e6
    ratio = Spread.of([b / a for a, b in zip(seconds["kernel"], seconds["library"], strict=True)])
    return {
        **{name: Spread.of([size / each for each in taken]).as_dict() for name, taken in seconds.items()},
        "times_faster": ratio.as_dict(),
        **differences(np.concatenate(list(_scored(model, texts))), _library_rows(library, lines, model.header.loss)),
    }


def _scored(model: FastTextModel, texts: pa.Array) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(texts), _SLICE_ROWS):
        yield model.probabilities(texts.slice(start, _SLICE_ROWS))


def _library_rows(library: Any, lines: Sequence[str], loss: str) -> npt.NDArray[np.float64]:
    """The library's probabilities; 0 for labels that it leaves out, NaN for texts without words."""
    places = {label: place for place, label in enumerate(library.f.getLabels("strict")[0])}
    rows = np.full((len(lines), len(places)), np.nan)
    for row, line in zip(rows, lines, strict=True):
        found = library.f.predict(line, -1, 0.0, "strict")
        if found:
            row[:] = 0
            for probability, label in found:
                row[places[label]] = probability - (0 if loss == "hs" else _LIBRARY_OFFSET)
    return rows


def differences(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Compare probabilities [texts, labels], of which the library leaves out those that are 0; see `METHOD`."""
    scored = ~np.isnan(ours).any(axis=1)  # the library scores a text without words as the end of a line
    if np.isnan(theirs[scored]).any():
        raise SystemExit("benchmarks.kinds: the kernel scores texts that the library does not")
    ours, theirs = ours[scored], theirs[scored]
    listed = theirs > 0
    chosen = theirs[np.arange(len(ours)), ours.argmax(axis=1)]
    return {
        "largest_difference": float(f"{np.abs(ours - theirs)[listed].max(initial=0):.2g}"),
        "top_labels_that_differ": int((chosen < theirs.max(axis=1) - 1e-6).sum()),
    }


def _in_words(measured: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{group} {found['kernel']['median']:.1f} MB/s, library {found['library']['median']:.1f}, "
        f"{found['times_faster']['median']:.2f} x, difference {found['largest_difference']}"
        for group, found in measured["groups"].items()
    )


def _size(texts: pa.Array) -> int:
    return int(pc.sum(pc.binary_length(texts)).as_py())


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
