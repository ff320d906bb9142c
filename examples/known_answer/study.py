"""Train on text whose exact loss is known, and compare: `python examples/known_answer/study.py`; README.md explains it.

The results are JSON Lines: the answer, then a record for each model as soon as it is measured. A second call with the
same settings trains the models that are missing there.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from figure import save_figure
from hidden_markov import answer, draw_process, sample
from measuring import HeldOut, exact_record, measure
from promises import markdown, promises
from text_files import write_documents, write_vocabulary

import colophon
from colophon.pipeline.recipe.schema import Recipe
from colophon.shards.tokenizer.tokenizer import load_tokenizer
from colophon.trainer.config import TrainConfig
from colophon.trainer.inference.trained_model import load_trained
from colophon.trainer.loop import train

RECIPE = Path(__file__).with_name("recipe.toml")
ARMS = ("plain", "prepend", "prepend-control", "append", "append-control")
MODELS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "30m": {
        "model": {"num_layers": 9, "hidden_size": 512, "ffn_size": 1408, "num_heads": 8, "num_kv_heads": 8},
        "text_tokens": 10_000_000,
        "batch_size": 256,
        "learning_rate": 1e-3,
        "schedule": {"type": "wsd", "decay_fraction": 0.5, "decay": "linear"},
    },
}
"""Settings of training by model, where they differ from the recipe's."""
QUICK: dict[str, Any] = {
    "arms": ("plain", "prepend"),
    "seeds": 1,
    "length": 10,
    "held_out": 500,
    "training": {"text_tokens": 240_000, "batch_size": 12},
}
"""Settings of a study that takes half a minute: both floors, the gain by prompt length, the cost of a wrong class."""
Record: TypeAlias = dict[str, Any]
Report: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Study:
    """The settings of a study."""

    work: Path
    """Directory of the documents, the packed layouts and the models."""
    output: Path
    """File of the results."""
    model: str = "tiny"
    """One of `MODELS`."""
    arms: Sequence[str] = ARMS
    """Layouts to train, those of the greatest worth first."""
    seeds: int = 5
    """Trainings of each layout, with the seeds 0, 1, ... of weights and order."""
    length: int = 16
    """Words of a document."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of training that differ from the recipe's."""
    held_out: int = 2000
    """Documents to measure."""
    device: str = "auto"
    minutes: float | None = None
    """No model is begun that would probably end later. None: no limit."""


def run(study: Study, *, report: Report = print) -> list[Record]:
    """Write and pack the documents, train and measure the models; returns the records of the results."""
    started = time.monotonic()
    recipe = _recipe(study)
    config = _config(study, recipe)
    held = _prepare(study, recipe, num_documents=math.ceil((config.text_tokens or 0) / study.length))
    records = _begin(study.output, {**exact_record(held), "settings": _settings(study, config)})
    done = {(record["seed"], record["arm"]) for record in records[1:]}
    missing = [(seed, arm) for seed in range(study.seeds) for arm in study.arms if (seed, arm) not in done]
    for seed, arm in _in_time(missing, started=started, minutes=study.minutes, report=report):
        one = TrainConfig.model_validate({**config.model_dump(exclude_unset=True), "layout": arm, "seed": seed})
        measured = _trained(one, f"{arm}-{seed}", output=Path(recipe.output.path), held=held)
        record = {"arm": arm, "seed": seed, **measured}
        records.append(record)
        with study.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        report(f"{arm}, seed {seed}: {record['loss'][-1] / study.length:.4f} nats per word, {record['seconds']:.0f} s")
    return records


def _recipe(study: Study) -> Recipe:
    """The recipe with the study's paths and layouts, and with rows that hold whole documents.

    The rows of 16 words have 126 tokens: 7 documents with bos and eos, or 6 with boc, class and eoc too. So no layout
    cuts a document.
    """
    settings = {
        "input.paths": [str(study.work / "documents.parquet")],
        "output.path": str(study.work / "run"),
        "tokenizer.path": str(study.work / "words.tiktoken"),
        "pack.sequence_length": math.lcm(study.length + 2, study.length + 5) - 1,
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    recipe = colophon.load_recipe(str(RECIPE), overrides=overrides)
    return recipe.model_copy(update={"layouts": {arm: recipe.layouts[arm] for arm in study.arms}})


def _config(study: Study, recipe: Recipe) -> TrainConfig:
    """The settings that all trainings of the study share."""
    changed = {**MODELS[study.model], **study.training, "device": study.device}
    return TrainConfig.model_validate({**recipe.train["plain"].model_dump(exclude_unset=True), **changed})


def _prepare(study: Study, recipe: Recipe, *, num_documents: int) -> HeldOut:
    """Write the documents to train on and to measure, and run the recipe over both; the second is not packed."""
    process = draw_process(num_classes=4, num_states=4, num_words=16, seed=0)
    held = sample(process, num_documents=study.held_out, length=study.length, seed=2)
    documents = sample(process, num_documents=num_documents, length=study.length, seed=1)
    write_vocabulary(study.work / "words.tiktoken", process)
    write_documents(study.work / "documents.parquet", process, documents)
    write_documents(study.work / "held-out.parquet", process, held)
    colophon.run(recipe, executor="inline", rebuild=True)
    output = study.work / "held-out"
    changed = {
        "input": recipe.sources[0].model_copy(update={"paths": [str(study.work / "held-out.parquet")]}),
        "output": recipe.output.model_copy(update={"path": str(output)}),
    }
    colophon.run(recipe.model_copy(update=changed), stages=("annotate", "tokenize"), executor="inline", rebuild=True)
    assert recipe.tokenizer is not None
    return HeldOut(output=output, tokenizer=load_tokenizer(recipe.tokenizer), exact=answer(process, held))


def _settings(study: Study, config: TrainConfig) -> Record:
    """The settings that decide a result, apart from the layout and the seed."""
    varied = {"layout", "seed", "device"}
    return {"length": study.length, **config.model_dump(mode="json", exclude=varied, exclude_unset=True)}


def _begin(results: Path, first: Record) -> list[Record]:
    """The records of an earlier call with the same answer and settings; else the first of a new file."""
    lines = results.read_text(encoding="utf-8").splitlines(keepends=True) if results.exists() else []
    whole = [line for line in lines if line.endswith("\n")]  # a call that is killed may leave half of the last one
    if not whole or whole[0] != json.dumps(first) + "\n":
        whole = [json.dumps(first) + "\n"]
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text("".join(whole), encoding="utf-8")
    return [json.loads(line) for line in whole]


def _in_time(
    missing: Sequence[tuple[int, str]], *, started: float, minutes: float | None, report: Report
) -> Iterator[tuple[int, str]]:
    """Yield seeds and layouts while a model as slow as the slowest so far would end in time."""
    slowest = 0.0
    for number, each in enumerate(missing):
        begun = time.monotonic()
        if minutes is not None and begun - started + slowest > 60 * minutes:
            report(f"{len(missing) - number} models are not trained: they would end after {minutes:g} minutes")
            return
        yield each
        slowest = max(slowest, time.monotonic() - begun)


def _trained(config: TrainConfig, name: str, *, output: Path, held: HeldOut) -> Record:
    """Train a model, and measure it."""
    started = time.monotonic()
    result = train(config, name=name, output=output, overwrite=True)
    trained = load_trained(output, name, device=None if config.device == "auto" else config.device)
    return {
        "steps": result.state.step,
        "text_tokens": result.state.text_tokens,
        "parameters": result.num_parameters,
        **measure(trained, held=held),
        "seconds": time.monotonic() - started,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study as the command line asks; returns 1 where a promise does not hold."""
    chosen = _arguments().parse_args(arguments)
    torch.set_num_threads(1)  # for models this small, threads cost more time than they save
    names = ("work", "output", "model", "seeds", "device", "minutes")
    settings = {name: getattr(chosen, name) for name in names}
    records = run(Study(**{**settings, **(QUICK if chosen.quick else {})}))
    found = promises(records)
    print(markdown(records) if chosen.table else "\n".join(map(str, found)))
    if chosen.figure is not None:
        save_figure(records, chosen.figure)
    return int(not all(promise.holds for promise in found))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train on text whose exact loss is known, and compare.")
    work = Path("out/known-answer")
    add = parser.add_argument
    add("--work", type=Path, default=work, help="directory of documents and models (default: %(default)s)")
    add("--output", type=Path, default=work / "results.jsonl", help="file of results (default: %(default)s)")
    add("--model", choices=MODELS, default="tiny", help="size of the models (default: %(default)s)")
    add("--seeds", type=int, default=5, help="trainings of each layout, up to 10 (default: %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto is a GPU if there is one (default)")
    add("--minutes", type=float, help="begin no model that would end later (default: no limit)")
    add("--quick", action="store_true", help="one seed of plain and prepend, on shorter documents: half a minute")
    add("--figure", type=Path, help="also draw the results into this .png, .svg or .webp")
    add("--table", action="store_true", help="print the promises as the table of README.md")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
