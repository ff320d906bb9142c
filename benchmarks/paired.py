"""Measures how far below the spread of seeds a difference between layouts is known when its seeds are paired.

    python -m benchmarks.paired measure     what benchmarks/results/paired.json lacks; a quarter of an hour of one core
    python -m benchmarks.paired table       Markdown, to stdout

Two layouts of the same web text are trained with the same seeds, with each `order`; those of the known answer have been
(examples/known_answer). With `order = "documents"`, trainings of a seed have the same initial weights and the same text
in every update; with `order = "rows"` they have the same initial weights alone. The losses are those of the same
held-out documents, which depend on no seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from scipy import stats

import colophon
from benchmarks.machine import machine
from benchmarks.workload import find_input
from colophon.shards.tokenizer.training import train_tokenizer
from colophon.trainer.config import TrainConfig
from colophon.trainer.loop import train

RESULTS = Path(__file__).parent / "results" / "paired.json"
KNOWN_ANSWER = Path(__file__).parents[1] / "examples" / "known_answer" / "results.jsonl"
LAYOUTS = ("plain", "prepend-url")
RECIPE = """
[input]
paths = ["{work}/{name}.parquet"]
[output]
path = "{work}/{name}"
[annotators.url]
[tokenizer]
path = "{work}/own.tiktoken"
[pack]
sequence_length = {sequence_length}
[layouts]
plain = {{ position = "plain" }}
prepend-url = {{ position = "prepend", template = "{{url}}", dropout = 0, max_metadata_tokens = 32 }}
"""
ORDERS = ("documents", "rows")
TRAINING: dict[str, Any] = {
    "model": {"num_layers": 2, "hidden_size": 48, "ffn_size": 96, "num_heads": 2, "num_kv_heads": 2, "init_std": 0.05},
    "text_tokens": 120_000,
    "batch_size": 4,
    "learning_rate": 6e-3,
    "schedule": {"type": "wsd", "warmup_steps": 8, "decay_fraction": 0.5, "decay": "linear"},
}
_LONGEST = 2000
"""Characters of a document: so that many documents, and not a few long ones, decide a loss."""
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Study:
    """The settings of the measurement."""

    work: Path
    """Directory of documents, shards and models."""
    files: Sequence[Path]
    """Parquet files with `text`, `id` and `url`: training documents are from the first, held-out ones from the last."""
    seeds: int = 6
    documents: int = 1500
    held_out: int = 80
    sequence_length: int = 128
    vocabulary_size: int = 512
    training: Mapping[str, Any] = field(default_factory=lambda: TRAINING)

    def settings(self) -> Record:
        """The values that decide a loss, apart from layout, order and seed."""
        names = ("documents", "held_out", "sequence_length", "vocabulary_size")
        return {**{name: getattr(self, name) for name in names}, **self.training}


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """How much of the spread over seeds is shared by the layouts of a seed."""

    layouts: int
    seeds: int
    spread: float
    """Standard deviation over seeds of a layout's loss: the root of the mean variance of all layouts."""
    paired: float
    """The same without what the layouts of a seed share: the mean loss of each seed is removed first."""

    @classmethod
    def of(cls, losses: Sequence[Sequence[float]]) -> Pairing:
        """From the losses of each seed, in the order of the layouts; at least two of both."""
        values = np.array(losses)
        seeds, layouts = values.shape
        values -= values.mean(axis=0)
        rest = values - values.mean(axis=1, keepdims=True)
        spread = np.sqrt((values**2).sum() / (layouts * (seeds - 1)))
        paired = np.sqrt((rest**2).sum() / ((layouts - 1) * (seeds - 1)))
        return cls(layouts=layouts, seeds=seeds, spread=float(spread), paired=float(paired))

    @property
    def ratio(self) -> float:
        """The spread of a difference of layouts of the same seed, by that of a difference of layouts that have seeds of
        their own; 1: pairing does nothing."""
        return self.paired / self.spread

    @property
    def ratio_interval(self) -> tuple[float, float]:
        """The 95 % interval of the ratio, if losses are normal and all layouts have the same variance.

        The squared ratio is 1 - ρ, with ρ the correlation within a seed. Its interval follows from that of the quotient
        of the mean squares of seeds and rest, which is F-distributed up to a factor (Shrout and Fleiss 1979, ICC(3,1)).
        """
        free = (self.seeds - 1, (self.seeds - 1) * (self.layouts - 1))
        # spread² = (mean square of seeds + (layouts - 1) paired²) / layouts
        quotient = (self.layouts * self.spread**2 - (self.layouts - 1) * self.paired**2) / self.paired**2
        low, high = (float(stats.f.ppf(share, *free)) for share in (0.025, 0.975))
        return self._ratio_of(quotient / low), self._ratio_of(quotient / high)

    def _ratio_of(self, quotient: float) -> float:
        return float(np.sqrt(self.layouts / (self.layouts - 1 + quotient)))


def measure(
    study: Study, known: Record, *, log: Callable[[str], None], save: Callable[[Record], None] = lambda results: None
) -> Record:
    """The results, with the losses of `known` if its settings are the same; `save` gets them after each training."""
    settings = json.loads(json.dumps(study.settings()))
    losses = known.get("losses", []) if known.get("settings") == settings else []
    results = {"machine": machine(), "torch": str(torch.__version__), "settings": settings, "losses": losses}
    done = {(one["seed"], one["order"], one["layout"]) for one in losses}
    missing = [one for one in product(range(study.seeds), ORDERS, LAYOUTS) if one not in done]
    output, held_out = _packed(study) if missing else (study.work, study.work)
    for seed, order, layout in missing:
        one = {**study.training, "layout": layout, "order": order, "seed": seed, "validation_output": str(held_out)}
        config = TrainConfig.model_validate({**one, "validation_every": 10**6, "checkpoint_every": 0, "device": "cpu"})
        loss = train(config, name=f"{order}-{layout}-{seed}", output=output, overwrite=True).validation_text_loss
        losses.append({"order": order, "seed": seed, "layout": layout, "loss": loss})
        save(results)
        log(f"{order}, seed {seed}, {layout}: {loss:.4f} nats per token")
    return results


def _packed(study: Study) -> tuple[Path, Path]:
    """Pack the documents to train on and the held-out ones in both layouts; returns the two outputs."""
    texts = {"train": (study.files[0], study.documents), "held-out": (study.files[-1], study.held_out)}
    for name, (file, count) in texts.items():
        table = pq.read_table(file, columns=["id", "text", "url"])
        short = table.filter(pc.less_equal(pc.utf8_length(table["text"]), _LONGEST))
        study.work.mkdir(parents=True, exist_ok=True)
        pq.write_table(short.slice(0, count), study.work / f"{name}.parquet")
    text = pq.read_table(study.work / "train.parquet")["text"].cast(pa.string())
    train_tokenizer([text], vocabulary_size=study.vocabulary_size, output=study.work / "own.tiktoken")
    for name in texts:
        recipe = study.work / f"{name}.toml"
        recipe.write_text(RECIPE.format(work=study.work.absolute(), name=name, sequence_length=study.sequence_length))
        colophon.run(colophon.load_recipe(str(recipe)), executor="inline", rebuild=True)
    return study.work / "train", study.work / "held-out"


def read_results(path: Path) -> Record:
    """The results in a file; empty before the first measurement."""
    found: Record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def pairings(results: Record) -> dict[str, Pairing]:
    """The pairings by text and order: of the known answer, and of what is measured of the web text."""
    found = {"known answer, documents": Pairing.of(_known_answer())}
    by_run = {(one["order"], one["seed"], one["layout"]): one["loss"] for one in results.get("losses", [])}
    for order in ORDERS:
        seeds = sorted({seed for name, seed, _ in by_run if name == order})
        rows = [[by_run.get((order, seed, layout)) for layout in LAYOUTS] for seed in seeds]
        complete = [[loss for loss in row if loss is not None] for row in rows if None not in row]
        if len(complete) > 1:
            found[f"web, {order}"] = Pairing.of(complete)
    return found


def _known_answer() -> list[list[float]]:
    """Nats per word of all words, seed by seed, in `examples/known_answer`, which trains in the order of documents."""
    first, *models = map(json.loads, KNOWN_ANSWER.read_text(encoding="utf-8").splitlines())
    by_seed: dict[int, list[float]] = {}
    for one in models:
        by_seed.setdefault(one["seed"], []).append(one["loss"][-1] / first["words"][-1])
    return list(by_seed.values())


def table(results: Record) -> str:
    """The results as Markdown."""
    lines = [
        "| text, `order` | layouts x seeds | spread over seeds | within a seed | ratio, with its 95 % interval | "
        "seeds that one pair is worth |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in pairings(results).items():
        low, high = one.ratio_interval
        lines.append(
            f"| {name} | {one.layouts} x {one.seeds} | {one.spread:.4f} | {one.paired:.4f} | "
            f"{one.ratio:.2f} ({low:.2f} to {high:.2f}) | {one.ratio**-2:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paired", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("command", choices=["measure", "table"])
    add("--input", action="append", default=[], metavar="PATH", help="Parquet files; default: as in benchmarks")
    add("--seeds", type=int, default=Study.seeds, help="trainings of each layout and order (default: %(default)s)")
    add("--work", type=Path, default=Path("out/bench/paired"), help="documents and models (default: %(default)s)")
    add("--results", type=Path, default=RESULTS, help="file of the results")
    options = parser.parse_args(arguments)
    known = read_results(options.results)
    if options.command == "table":
        sys.stdout.write(table(known))
        return 0

    def save(results: Record) -> None:
        options.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    torch.set_num_threads(1)  # for models this small, threads cost more time than they save
    log = partial(print, flush=True)
    _, files = find_input(options.input, work=options.work, log=log)
    study = Study(work=options.work, files=files, seeds=options.seeds)
    sys.stdout.write(table(measure(study, known, log=log, save=save)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
