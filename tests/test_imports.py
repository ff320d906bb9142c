"""The import law: imports run one way, and heavy libraries stay where they belong.

    pipeline → annotators, shards        trainer → shards        annotators → shards.common alone

Two exceptions, both here and nowhere else:

- `pipeline/recipe/schema.py` imports `trainer.config` (settings without torch): `[train.<name>]` is part of a
  recipe.
- the commands that train, and those that work with trained models, import `trainer` inside their functions, or for
  type checking alone; so does the training of classifiers, which a pipeline's tokenizer and annotators serve.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.pipeline.small_run import write_small_run

ROOT = Path(__file__).parents[1]
PACKAGES = ("annotators", "shards", "pipeline", "trainer", "recipes")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ALLOWED = {
    "annotators": set(),  # but for `shards.common`, which imports nothing else of ours
    "shards": set(),
    "pipeline": {"annotators", "shards", "recipes"},
    "trainer": {"shards"},
    "recipes": set(),
}
COMMON = "colophon.shards.common"
SETTINGS_EXCEPTION = ("pipeline/recipe/schema.py", "colophon.trainer.config")
LAZY_EXCEPTIONS = (
    "pipeline/classifiers/embedding_training.py",
    "pipeline/classifiers/heads.py",
    "pipeline/classifiers/pooled_training.py",
    "pipeline/classifiers/students.py",
    *(
        f"pipeline/cli/{name}.py"
        for name in (
            "training",
            "classifier_kinds",
            "distillation",
            "evaluation",
            "exports",
            "studies",
            "trained_models",
            "doctor",
            "report",
            "tracing",
        )
    ),
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
IMPORT_CALLS = ("import_module", "importlib.import_module", "__import__")


class Import(NamedTuple):
    """One import as it stands in a file."""

    file: str
    module: str
    line: int
    is_deferred: bool
    """Whether it is in a function or under TYPE_CHECKING."""

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    @property
    def package(self) -> str | None:
        """Which of our packages it imports from, None for a library."""
        parts = self.module.split(".")
        return parts[1] if parts[0] == "colophon" and len(parts) > 1 and parts[1] in PACKAGES else None


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Every import of a source text, also those in functions, under TYPE_CHECKING and by a literal name."""

    def walk(node: ast.AST, is_deferred: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            for module in modules_of(child, file):
                yield Import(file, module, getattr(child, "lineno", 0), is_deferred)
            yield from walk(child, is_deferred or isinstance(child, FUNCTIONS) or is_for_types(child))

    return walk(ast.parse(source), False)


def is_for_types(node: ast.AST) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def modules_of(node: ast.AST, file: str) -> list[str]:
    """The modules that one statement or call imports; `from trainer import config` may name a module too."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = ("colophon", *Path(file).parts[: -node.level]) if node.level else ()
        return [".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in IMPORT_CALLS and node.args:
        name = node.args[0]
        return [name.value] if isinstance(name, ast.Constant) and isinstance(name.value, str) else []
    return []


def all_imports() -> list[Import]:
    found: list[Import] = []
    for path in FILES:
        found += imports_of(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    return found


IMPORTS = all_imports()


def is_within(module: str, parent: str) -> bool:
    return module == parent or module.startswith(f"{parent}.")


def is_exception(found: Import) -> bool:
    file, module = SETTINGS_EXCEPTION
    if found.file == file and is_within(found.module, module):
        return True
    if found.file.startswith("annotators/") and is_within(found.module, COMMON):
        return True
    return found.file in LAZY_EXCEPTIONS and found.is_deferred and found.package == "trainer"


def broken_imports(found: list[Import]) -> list[str]:
    """Imports of our own packages that run the wrong way."""
    return [
        f"{i.file}:{i.line} imports {i.module}"
        for i in found
        if i.package is not None
        and i.package != (own := i.file.split("/")[0])
        and i.package not in ALLOWED[own]
        and not is_exception(i)
    ]


def test_the_files_are_found() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in FILES}
    assert {
        "annotators/base.py",
        "shards/packing/pack.py",
        "pipeline/recipe/schema.py",
        "trainer/loop.py",
    } <= names


def test_imports_run_one_way() -> None:
    assert broken_imports(IMPORTS) == []


@pytest.mark.parametrize(
    ("file", "source", "broken"),
    [
        ("shards/x.py", "import numpy\nfrom colophon.shards.schema import Role", False),
        ("shards/x.py", "from colophon.annotators.base import Annotator", True),
        ("shards/x.py", "def f():\n    import colophon.pipeline.runs.run", True),
        ("annotators/x.py", "from colophon.shards import schema", True),
        ("annotators/x.py", "from colophon.shards.common.durable import sync", False),
        ("annotators/x.py", "import importlib\nimportlib.import_module('colophon.trainer.loop')", True),
        ("trainer/x.py", "from colophon.shards.reader import PackedDataset", False),
        ("trainer/x.py", "from colophon.pipeline.errors import UsageError", True),
        ("trainer/x.py", "if TYPE_CHECKING:\n    from colophon.annotators import base", True),
        ("pipeline/x.py", "import colophon.annotators.base, shards", False),
        ("pipeline/x.py", "def f():\n    from colophon.trainer.loop import train", True),
        ("pipeline/x.py", "from colophon.trainer.config import TrainConfig", True),
        ("pipeline/recipe/schema.py", "from colophon.trainer.config import TrainConfig", False),
        ("pipeline/recipe/schema.py", "from colophon.trainer.loop import train", True),
        ("pipeline/cli/training.py", "def f():\n    from colophon.trainer.loop import train", False),
        ("pipeline/cli/training.py", "from colophon.trainer.loop import train", True),
        ("pipeline/cli/training.py", "if TYPE_CHECKING:\n    from colophon.trainer.loop import train", False),
        ("pipeline/cli/training.py", "if DEBUG:\n    from colophon.trainer.loop import train", True),
        ("shards/x.py", "from ..trainer import loop", True),
        ("pipeline/x.py", "from . import errors", False),
    ],
)
def test_the_law_itself(file: str, source: str, broken: bool) -> None:
    assert bool(broken_imports(list(imports_of(source, file)))) == broken


def test_what_all_share_imports_nothing_else_of_ours() -> None:
    shared = [i for i in IMPORTS if i.file.startswith("shards/common/") and i.package is not None]
    assert [i for i in shared if not is_within(i.module, COMMON)] == []


def test_torch_only_under_trainer() -> None:
    assert [i for i in IMPORTS if i.top == "torch" and not i.file.startswith("trainer/")] == []


def test_ray_in_one_room_of_the_pipeline() -> None:
    imports = [i for i in IMPORTS if i.top == "ray"]
    assert imports
    assert [i for i in imports if not i.file.startswith("pipeline/executors/on_ray/")] == []


RAY_PRIVATE = ("ray._private", "ray._raylet")


def private_ray_names(source: str) -> list[str]:
    """Names of Ray's private modules in a source text, as imports, attributes or strings."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        names = [ast.unparse(node)] if isinstance(node, ast.Attribute) else modules_of(node, "pipeline/x.py")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]
        found += [name for name in names if any(is_within(name, private) for private in RAY_PRIVATE)]
    return found


def test_the_pipeline_uses_the_public_api_of_ray_alone() -> None:
    named = {
        str(path): private_ray_names(path.read_text(encoding="utf-8")) for path in (ROOT / "pipeline").rglob("*.py")
    }
    assert {path: names for path, names in named.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    [
        "from ray._private import services",
        "import ray._raylet",
        "import ray\nray._private.services.get_node()",
        "from ray import _private",
        "import importlib\nimportlib.import_module('ray._private.state')",
    ],
)
def test_a_private_name_of_ray_is_found(source: str) -> None:
    assert private_ray_names(source)


def test_our_modules_are_imported_under_one_name() -> None:
    """`import shards` would work in a checkout, and load a second copy of what `colophon.shards` is."""
    assert [f"{i.file}:{i.line} {i.module}" for i in IMPORTS if i.top in PACKAGES] == []


def test_no_module_is_named_after_the_standard_library() -> None:
    """A script in the module's folder would shadow it; `__init__` and `__main__` are names of their own kind."""
    names = {path.stem for path in FILES} - {"__init__", "__main__"}
    assert names & sys.stdlib_module_names == set()


def loaded_after(statement: str, *libraries: str) -> set[str]:
    """Which of `libraries` a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*(name for name in {libraries!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_check_sees_what_is_loaded() -> None:
    assert loaded_after("import colophon.shards.schema", "torch", "pyarrow", "numpy") == {"pyarrow", "numpy"}


HEAVY = ("torch", "ray", "datatrove", "numba", "llvmlite", "pandas", "polars", "fasttext", "fasttext_pybind")
TOKENIZERS = ("tiktoken", "tokenizers", "gigatoken", "mistral_common")
OTHERS = ("pyarrow", "numpy", "pydantic", "rich", "fsspec", "tldextract", "requests", "psutil")
EVERYTHING = (*HEAVY, *TOKENIZERS, *OTHERS)


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        # What `colophon --help` imports, and packages of which it is not known yet what of them will be needed.
        *(
            (name, set())
            for name in ("colophon", "colophon.pipeline.cli", *(f"colophon.{package}" for package in PACKAGES))
        ),
        ("colophon.trainer.config", {"pydantic"}),
        ("colophon.annotators.base", {"pyarrow", "numpy", "pydantic"}),
        ("colophon.annotators.fasttext_classifier", {"pyarrow", "numpy", "pydantic"}),
        ("colophon.shards.reader", {"pyarrow", "numpy", "pydantic"}),
        ("colophon.shards.packing.pack", {"pyarrow", "numpy", "pydantic"}),
    ],
)
def test_importing_a_module_loads_what_it_needs_and_nothing_else(module: str, needed: set[str]) -> None:
    assert loaded_after(f"import {module}", *EVERYTHING) == needed


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("colophon.shards.tokenizer.tokenizer", (*HEAVY, "gigatoken", "mistral_common", "fsspec")),
        ("colophon.pipeline.recipe.schema", (*HEAVY, "gigatoken", "mistral_common", "fsspec")),
        # The stages, in the driver and in a worker: models and engines are loaded by what uses them.
        ("colophon.pipeline.runs.run", (*HEAVY, "gigatoken", "mistral_common", "tldextract")),
        # What local workers are forked from; pyarrow has imported pandas there, for all of them.
        (
            "colophon.pipeline.executors.local.worker_process",
            (*(name for name in HEAVY if name != "pandas"), "gigatoken", "mistral_common", "tldextract"),
        ),
        (
            "colophon.pipeline.executors.on_ray.pool",
            (*(name for name in HEAVY if name != "ray"), "gigatoken", "mistral_common", "tldextract"),
        ),
    ],
)
def test_importing_a_module_loads_no_library_that_it_may_not_need(module: str, absent: tuple[str, ...]) -> None:
    assert loaded_after(f"import {module}", *absent) == set()


COMMAND = """
import sys, contextlib, io
sys.argv = ["colophon", *{arguments!r}]
import colophon.pipeline.cli
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    colophon.pipeline.cli.main()
assert {said!r} in out.getvalue(), out.getvalue()
"""


def test_help_loads_no_library() -> None:
    for arguments in (["--help"], ["run", "--help"], ["--version"]):
        own = {"rich", "pydantic"}  # typer looks for them by itself
        assert loaded_after(COMMAND.format(arguments=arguments, said="colophon"), *EVERYTHING) <= own


def test_a_dry_run_starts_nothing_and_a_run_without_ray_loads_none(tmp_path: Path) -> None:
    """The plan needs the vocabulary and the models' headers; the work needs the engines, and neither needs Ray."""
    recipe = str(write_small_run(tmp_path / "run", num_files=1))
    engines = ("torch", "ray", "datatrove", "numba", "gigatoken", "mistral_common", "psutil")
    dry = COMMAND.format(arguments=["run", recipe, "--dry-run", "--no-probe"], said="files to write for")
    assert loaded_after(dry, *engines) == set()
    inline = COMMAND.format(arguments=["run", recipe, "--executor", "inline"], said="this run")
    # Both read documents, and pyarrow imports pandas, where that is installed, to make its first array.
    assert loaded_after(inline, "torch", "ray", "datatrove", "numba", "mistral_common") == set()
