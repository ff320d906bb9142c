"""Accuracy of all contestants on the same splits, and the speed of the annotators, interleaved."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.classifiers.contestants import contestants, gpt2
from benchmarks.classifiers.tasks import Task, tasks
from colophon.annotators.fasttext.report import compare_labels
from colophon.annotators.fasttext.training.classifier import train_classifier
from colophon.annotators.fasttext_classifier import FastTextConfig
from colophon.annotators.pooled_classifier import PooledConfig
from colophon.pipeline.classifiers.agreement import Interval, Ranks, spearman, with_intervals
from colophon.pipeline.classifiers.comparison import Metric, minus
from colophon.pipeline.classifiers.pooled_training import train_pooled
from colophon.shards.common.arrays import NumPyArray
from colophon.trainer.classifiers.settings import PooledSettings

SEEDS = (0, 1, 2)
_ROUNDS = 5
_RESAMPLES = 1000
_SPEED_TEXTS = 3000


def measure(
    data: Path,
    results: dict[str, Any],
    *,
    log: Callable[[str], None],
    save: Callable[[dict[str, Any]], None],
    chosen: set[str],
) -> dict[str, Any]:
    """Results by task, seed and contestant, and speeds: those of `results`, and what it lacks.

    `save` gets what is known after each task.

    `data` has `labels/`, `web/` and `vocab/gpt2.tiktoken`; `chosen` are the tasks, all of them if empty.
    """
    results = {"tasks": results.get("tasks", {}), "speed": results.get("speed") or _speed(data, log=log)}
    for seed in SEEDS:
        for name, task_of in tasks(data).items():
            if (chosen and name not in chosen) or str(seed) in results["tasks"].get(name, {}).get("seeds", {}):
                continue
            task = task_of(seed)
            found = results["tasks"].setdefault(name, {"train": len(task.texts), "test": len(task.test_texts)})
            found.setdefault("seeds", {})[str(seed)] = _compared(task, seed, data, name=name, log=log)
            save(results)
    return results


def _compared(task: Task, seed: int, data: Path, *, name: str, log: Callable[[str], None]) -> dict[str, Any]:
    answers, right, expected = {}, {}, {}
    true = task.test_labels.to_pylist()
    for contestant, train in contestants(data / "vocab" / "gpt2.tiktoken").items():
        with tempfile.TemporaryDirectory(prefix="colophon-bench-") as work:
            answer = train(task, seed, Path(work))
        predicted = answer.labels.to_pylist()
        report = compare_labels(true, predicted, known=sorted(set(true)))
        right[contestant] = np.array([a == b for a, b in zip(true, predicted, strict=True)])
        answers[contestant] = {
            "accuracy": round(float(right[contestant].mean()), 4),
            "macro_f1": round(report.macro_f1, 4),
            "training_seconds": round(answer.training_seconds, 1),
            "model_bytes": answer.model_bytes,
        }
        if answer.expected is not None:
            expected[contestant] = Ranks(answer.expected)
        log(f"{name}, seed {seed}, {contestant}: {answers[contestant]}")
    ranks = _ranks(expected, np.array(true, float), seed=seed) if expected else {}
    return {**answers, "differences": _differences(right, seed=seed), **ranks}


def _differences(right: Mapping[str, np.ndarray[Any, Any]], *, seed: int) -> dict[str, list[float]]:
    """The accuracy of `pooled` less that of each other contestant, and its 95 % interval over the test texts."""
    random = np.random.default_rng(seed)
    found = {}
    for name, each in right.items():
        if name != "pooled":
            difference = right["pooled"].astype(float) - each
            picks = random.integers(0, len(difference), (_RESAMPLES, len(difference)))
            low, high = np.quantile(difference[picks].mean(axis=1), [0.025, 0.975])
            found[name] = [round(float(x), 4) for x in (difference.mean(), low, high)]
    return found


def _ranks(expected: Mapping[str, Ranks], true: NumPyArray, *, seed: int) -> dict[str, Any]:
    """The rank correlation of labels that are numbers with the expected value of each contestant, the difference of
    `pooled` from each other one, and the 95 % interval of both over the test texts."""
    teacher = Ranks(true)
    metrics: dict[str, Metric] = {name: partial(spearman, each, teacher) for name, each in expected.items()}
    differences = {name: minus(metrics["pooled"], each) for name, each in metrics.items() if name != "pooled"}
    groups = np.arange(len(true))
    return {
        "rank_correlation": _rounded(with_intervals(metrics, groups, seed=seed)),
        "rank_differences": _rounded(with_intervals(differences, groups, seed=seed)),
    }


def _rounded(found: Mapping[str, Interval]) -> dict[str, list[float]]:
    return {name: [round(x, 4) for x in (one.value, one.low, one.high) if x is not None] for name, one in found.items()}


def _speed(data: Path, *, log: Callable[[str], None]) -> dict[str, Any]:
    """MB of text a second of CPU time, of one thread: each annotator on the same web text, in turn."""
    task = tasks(data)["news"](0)
    texts = pq.read_table(data / "web" / "validation.parquet")["text"].cast(pa.string()).combine_chunks()
    texts = texts.slice(0, _SPEED_TEXTS)
    tokenizer = gpt2(data / "vocab" / "gpt2.tiktoken")
    batch = pa.record_batch({"text": texts, "input_ids": tokenizer.encode_batch(texts)})
    with tempfile.TemporaryDirectory(prefix="colophon-bench-") as work:
        pooled, fasttext = Path(work, "a.safetensors"), Path(work, "a.bin")
        train_pooled(task.texts, {"label": task.labels}, tokenizer=tokenizer, output=pooled, settings=PooledSettings())
        train_classifier(task.texts, task.labels, output=fasttext)
        annotators = {
            "pooled": PooledConfig(model=str(pooled)).build("pooled"),
            "fastText, bigrams": FastTextConfig.model_validate(
                {"model": str(fasttext), "score": {"argmax": True}}
            ).build("fasttext"),
        }
        megabytes, rounds = texts.nbytes / 1e6, {name: list[float]() for name in annotators}
        for annotator in annotators.values():
            annotator.load()
            annotator.annotate(batch.slice(0, 50))
        for _ in range(_ROUNDS):
            for name, annotator in annotators.items():
                begun = time.process_time()
                annotator.annotate(batch)
                rounds[name].append(round(megabytes / (time.process_time() - begun), 1))
    log(f"MB/s of CPU time: {rounds}")
    return {"megabytes": round(megabytes, 1), "rounds": rounds}
