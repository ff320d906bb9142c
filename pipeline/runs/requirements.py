"""The requirements of a run: the files that the machine of every worker must have."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from colophon.annotators.base import AnnotatorError
from colophon.annotators.plugin_files import MODULE_PREFIX
from colophon.annotators.registry import origin_of
from colophon.pipeline.errors import UsageError
from colophon.pipeline.executors.handshake import Requirements, required_file
from colophon.pipeline.runs.plan import Plan
from colophon.shards.common.digests import file_sha256
from colophon.shards.common.paths import absolute_path
from colophon.shards.outputs import StageName
from colophon.shards.tokenizer.files import sidecar_path

_INPUT_DIRECTORIES = 256


def requirements(plan: Plan, stages: Collection[StageName], *, directories: Collection[str] = ()) -> Requirements:
    """The requirements of some stages. Reads each model once for its sha256, which is remembered.

    Args:
        plan: the run.
        stages: models are needed to annotate and to rewrite text, a tokenizer to tokenize and pack, input for the first
            two stages.
        directories: local directories besides the output that workers and this process must share.

    Raises:
        UsageError: a model or the tokenizer cannot be read here.
    """
    store, rewrites = plan.resolved.store.absolute, bool(plan.resolved.settings.rewriters)
    annotates = "annotate" in stages or ("tokenize" in stages and rewrites)
    try:
        files = tuple(required_file(path) for path in _files(plan, stages, annotates=annotates))
    except AnnotatorError as error:
        raise UsageError(str(error)) from error
    return Requirements(
        files=files,
        modules=tuple(_foreign_modules(plan)) if annotates else (),
        packages=tuple(_packages(plan)) if annotates else (),
        plugins=plan.resolved.plugins if annotates else (),
        inputs=_some_inputs(plan) if {"annotate", "tokenize"} & set(stages) else (),
        directories=(*([store.root] if store.files.is_local else []), *directories),
    )


def _files(plan: Plan, stages: Collection[StageName], *, annotates: bool) -> Iterator[str]:
    recipe = plan.resolved.recipe
    if annotates:
        for config in recipe.annotators.values():
            yield from config.with_absolute_paths().paths
    encodes = bool({"tokenize", "pack"} & {*stages}) or ("annotate" in stages and plan.resolved.reads_ids)
    if encodes and recipe.tokenizer is not None and recipe.tokenizer.path is not None:
        path = Path(absolute_path(recipe.tokenizer.path))
        yield str(path)
        if sidecar_path(path).is_file():
            yield str(sidecar_path(path))


def _foreign_modules(plan: Plan) -> Iterator[tuple[str, str]]:
    """Names and sha256 of the modules of annotators that are neither Colophon's own nor sent as plugins."""
    for name in dict.fromkeys(type(annotator).__module__ for annotator in plan.resolved.annotators):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and not name.startswith(("colophon.", MODULE_PREFIX)):
            yield name, file_sha256(Path(file))


def _packages(plan: Plan) -> Iterator[tuple[str, str]]:
    """Names and versions of the installed packages that define annotators."""
    origins = (origin_of(type(config)) for config in plan.resolved.recipe.annotators.values())
    yield from dict.fromkeys(origin.package for origin in origins if origin.package is not None)


def _some_inputs(plan: Plan) -> tuple[str, ...]:
    """A local file of each directory of the input: a node may lack a disk. Of very many directories, some."""
    urls = (url for _, _, url in plan.resolved.inputs.partitions.files())
    files = {Path(url).parent: url for url in urls if "://" not in url}
    return tuple(files.values())[:: len(files) // _INPUT_DIRECTORIES + 1]
