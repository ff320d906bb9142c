"""Annotates pretraining text, packs it in every layout, trains on it: the names that a notebook needs.

    run = colophon.open("out/web")       # reads the manifest alone
    run.annotations().filter(...)        # polars LazyFrame: id and annotation columns, a row a document
    run.packed("prepend-url").rows([0])  # memory-mapped sequences with roles, loss weights and positions

    recipe = colophon.load_recipe("recipe.toml", overrides=["pack.sequence_length=1024"])
    colophon.run(recipe)

Importing this imports no library. Reading needs neither ray nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_recipe", "open", "run"]

if TYPE_CHECKING:
    from colophon.pipeline.recipe.loading import load_recipe
    from colophon.pipeline.runs.recipe_run import run_recipe as run
    from colophon.shards.run_output import open_run as open

_HOMES = {
    "load_recipe": ("colophon.pipeline.recipe.loading", "load_recipe"),
    "open": ("colophon.shards.run_output", "open_run"),
    "run": ("colophon.pipeline.runs.recipe_run", "run_recipe"),
}


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'colophon' has no attribute {name!r}; available: {', '.join(__all__)}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
