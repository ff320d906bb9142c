"""Checks of the installation: libraries, fastText, tokenizer, workers, Ray. Each does a piece of the real work."""

from __future__ import annotations

import base64
import os
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from colophon.annotators.fasttext.model import FastTextModel
from colophon.annotators.fasttext.model_cache import cache_dir
from colophon.annotators.fasttext.text_preparation import TextPreparation
from colophon.annotators.fasttext.training.classifier import train_classifier
from colophon.annotators.fasttext.training.settings import TrainingSettings
from colophon.pipeline.doctor.check import Finding
from colophon.pipeline.executors.cpus import num_cpus_here
from colophon.pipeline.executors.session import ExecutorName, cluster_address
from colophon.pipeline.recipe.loading import parse_recipe
from colophon.pipeline.recipe.schema import RaySection
from colophon.pipeline.runs.recipe_run import run_recipe
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer

_DOCUMENTS = 64
_TOLERANCE = 1e-3
"""fastText adds 1e-5 to each probability and works in another order."""


def check_libraries() -> Finding:
    """Whether each dependency is installed in a version that Colophon allows."""
    from packaging.requirements import Requirement

    problems, number = [], 0
    for line in requires("colophon") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        number += 1
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            problems.append(f"{requirement.name} is {installed}, expected {requirement.specifier}")
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if problems:
        return Finding(
            name="libraries", state="failed", found=f"{system}: {'; '.join(problems)}", remedy="pip install -e ."
        )
    return Finding(name="libraries", state="ok", found=f"{system}, {number} libraries in allowed versions")


def check_fasttext() -> Finding:
    """Whether Colophon's own scoring gives the probabilities of the fastText library, on a model trained here."""
    texts = [f"reading {word} about the river and the old stone bridge" for word in ("books", "maps", "notes")] * 20
    texts += [f"buy {word} now and click here for the best price" for word in ("shoes", "pills", "cars")] * 20
    labels = ["high"] * 60 + ["low"] * 60
    settings = TrainingSettings(dim=8, epoch=5, buckets=2000, min_count=1)
    with tempfile.TemporaryDirectory(prefix="colophon-doctor-") as directory:
        path = Path(directory, "model.bin")
        train_classifier(pa.array(texts), pa.array(labels), output=path, settings=settings, normalize=TextPreparation())
        model = FastTextModel(path, cached=False)
        ours = model.probabilities(pa.array(texts[::10]), preparation=TextPreparation())
        theirs = _library_probabilities(path, texts[::10], model.header.labels)
    difference = float(np.abs(ours - theirs).max())
    name = f"fasttext {version('fasttext')}"
    if difference > _TOLERANCE:
        return Finding(
            name="fasttext",
            state="failed",
            found=f"{name}: probabilities differ from the library's by {difference:.2g}",
            remedy=f"delete {cache_dir()} and reinstall numba; if it stays, please report it",
        )
    return Finding(
        name="fasttext", state="ok", found=f"{name}: a model was trained, and scored as the library scores it"
    )


def _library_probabilities(path: Path, texts: list[str], labels: tuple[str, ...]) -> np.ndarray:
    """float32 [texts, labels] of the fastText library, for a model that was trained here."""
    import fasttext

    model = fasttext.load_model(str(path))
    rows = []
    for text in texts:
        found = {label: p for p, label in model.f.predict(f"{text}\n", len(labels), 0.0, "strict")}
        rows.append([found[label] for label in labels])
    return np.array(rows, np.float32)


def check_tokenizer() -> Finding:
    """Whether the fast engine gives Tekken's ids; Tekken is installed with Colophon."""
    return tokenizer_finding(load_tokenizer(TokenizerConfig(name="tekken")))


def tokenizer_finding(tokenizer: Tokenizer) -> Finding:
    """Whether the fast engine gives the ids of the vocabulary's own library, on texts that are hard to split."""
    return Finding(
        name="tokenizer",
        state="ok" if tokenizer.is_fast else "warning",
        found=f"{tokenizer.name}, {tokenizer.num_ids:,} ids: {tokenizer.engine}",
        remedy="" if tokenizer.is_fast else "the ids are right, but tokenizing is about ten times slower",
    )


def check_workers(config: RaySection) -> Finding:
    """Whether a whole run works in processes of this machine."""
    tokens = _small_run(ExecutorName.LOCAL)
    number = config.num_workers or num_cpus_here()
    reason = "one for each CPU" if config.num_workers is None else "as ray.num_workers sets"
    return Finding(
        name="workers",
        state="ok",
        found=f"{number}, {reason}; a run of {_DOCUMENTS} documents wrote {tokens:,} tokens",
    )


def check_ray(config: RaySection) -> Finding:
    """Whether the named cluster answers; without one, whether a run works on a cluster that it starts here."""
    address = cluster_address(config)
    if address is None:
        _small_run(ExecutorName.RAY)
        return Finding(
            name="ray",
            state="ok",
            found=f"ray {version('ray')}: a run of {_DOCUMENTS} documents on a cluster of this machine",
        )
    from colophon.pipeline.executors.on_ray.cluster import connect, disconnect, num_cpus

    connect(config, log=lambda line: None)
    try:
        return Finding(name="ray", state="ok", found=f"ray {version('ray')}: {address} answers, {num_cpus()} CPUs")
    finally:
        disconnect()


def check_cache() -> Finding:
    """Whether the cache of model tables can be written."""
    path = cache_dir()
    chosen = os.environ.get("COLOPHON_CACHE_DIR")
    expected = Path(chosen or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    if path.is_relative_to(expected):
        return Finding(name="cache", state="ok", found=str(path))
    return Finding(
        name="cache",
        state="warning",
        found=f"{path}, since {expected} cannot be written",
        remedy="set COLOPHON_CACHE_DIR to a directory that survives restarts",
    )


def _small_run(executor: ExecutorName) -> int:
    """Annotate, tokenize and pack some documents in a temporary directory; return the number of their tokens.

    Raises:
        ColophonError: the run failed.
    """
    with tempfile.TemporaryDirectory(prefix="colophon-doctor-") as directory:
        root = Path(directory)
        numbers = range(_DOCUMENTS)
        rows = {
            "text": [f"Document {number}. " + "Words in order. " * (number % 7) for number in numbers],
            "id": [str(number) for number in numbers],
            "url": [f"https://site{number % 5}.example.org/{number}" for number in numbers],
        }
        pq.write_table(pa.table(rows), root / "rows.parquet")
        ranks = (f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(256))
        (root / "bytes.tiktoken").write_text("".join(ranks), encoding="utf-8")
        recipe = {
            "input": {"paths": [str(root / "rows.parquet")]},
            "output": {"path": str(root / "out")},
            "annotators": {"url": {}},
            "tokenizer": {"path": str(root / "bytes.tiktoken"), "pattern": "gpt2"},
            "pack": {"sequence_length": 256},
            "layouts": {"prepend-url": {"position": "prepend", "template": "{url}"}},
            "ray": {"num_workers": 1},
        }
        result = run_recipe(parse_recipe(recipe, where="doctor"), executor=executor, name="doctor")
        return int(result.summary["documents"]["tokens"])
