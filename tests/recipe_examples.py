"""Excerpts of recipes in pages and docstrings, completed and loaded as the commands load a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from colophon.pipeline.recipe.loading import parse_recipe
from colophon.pipeline.recipe.schema import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PLUGINS = Path(__file__).parents[1] / "examples" / "annotator"
"""The directory of the Python file that the pages name."""


def load_example(code: str) -> Recipe:
    """Load an excerpt of a recipe as a whole one.

    Added are an input and an output, the required keys of trainings, and the layouts that they name.
    """
    raw: dict[str, Any] = tomllib.loads(code)
    if "inputs" not in raw:
        raw.setdefault("input", {}).setdefault("paths", ["data/*.parquet"])
    raw.setdefault("output", {}).setdefault("path", "out/web")
    for train in raw.get("train", {}).values():
        if not train.get("sources"):
            train.setdefault("layout", "plain")
        train.setdefault("model", "1m")
        if "text_tokens" not in train:
            train.setdefault("steps", 20_000)
    if "train" in raw:
        standing_in = {
            "plain": {"position": "plain"},
            "prepend-url": {"position": "prepend", "template": "{url}"},
            "meta-tokens": {"position": "meta_tokens"},
        }
        raw["layouts"] = {**standing_in, **raw.get("layouts", {})}
    return parse_recipe(raw, where="the example", directory=PLUGINS, plugins=True)
