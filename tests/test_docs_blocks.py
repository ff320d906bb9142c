"""Every code block of the pages works: commands run on one small project, recipes load, Python runs on a finished run.

The pages share the project of the README: its recipe, its run, and trainings of a tiny model. Commands run in this
process where they can, so that each costs its work and not its imports.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colophon.shards.reader import PackedDataset
from tests.pages import PAGES, ROOT, TOP, Block, code_blocks
from tests.pipeline.project import Called, colophon
from tests.recipe_examples import load_example, tomllib

REASONS = (
    "needs a cluster",
    "needs a GPU",
    "needs an object store",
    "needs a download",
    "needs labelled files",
    "takes minutes",
    "is an excerpt",
)
"""The beginnings of what may be stated in `<!-- not run: ... -->`."""
BLOCKS = [block for page in [*TOP, *PAGES] for block in code_blocks(page)]
LESS_WORK = {
    **{stage: ["--executor", "inline", "--no-probe"] for stage in ("run", "annotate", "tokenize", "pack")},
    "train": ["--set", "train.tiny.steps=2", "--set", "train.tiny.batch_size=1"],
    "probe": ["--layers", "1", "--permutations", "1", "--documents", "160"],
}
"""Options that tests add, by command: without processes of its own, or with a fraction of the numbers."""
TRAININGS = """
[train.{layout}]
layout = "{layout}"
model = {{ num_layers = 1, hidden_size = 16, ffn_size = 32, num_heads = 2, num_kv_heads = 2 }}
steps = 2
batch_size = 2
validation_rows = 12
"""

pytestmark = [
    pytest.mark.xdist_group("pages"),
    # Of libraries: transformers and matplotlib.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def write_documents(path: Path, *, numbers: range) -> None:
    """Write documents of two kinds, good ones with even numbers and bad ones with odd ones."""
    good, bad = "The {}th theorem follows from the lemma about compact spaces. ", "BUY NOW {}!!! cheap click here win "
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {
        "text": [(bad if i % 2 else good).format(i) * (9 + i % 9) for i in numbers],
        "id": [f"<{i}>" for i in numbers],
        "url": [f"https://www{i % 5}.example.com/{i % 2}/{i}" for i in numbers],
        "label": ["low" if i % 2 else "high" for i in numbers],
    }
    pq.write_table(pa.table(table), path)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's directory: data, labels and the recipe of the README; it is the working directory."""
    root = tmp_path_factory.mktemp("user")
    for part in range(2):
        write_documents(root / "data" / f"part-{part}.parquet", numbers=range(part * 120, part * 120 + 120))
    write_documents(root / "validation" / "part-0.parquet", numbers=range(1000, 1060))
    write_documents(root / "labels" / "train.parquet", numbers=range(2000, 2160))
    write_documents(root / "labels" / "test.parquet", numbers=range(2160, 2240))
    (recipe,) = (block.code for block in code_blocks("README") if block.language == "toml")
    (root / "recipe.toml").write_text(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield root


@pytest.fixture(scope="module")
def printed(project: Path) -> dict[str, str]:
    """The output of the README's commands, by their names: its recipe is run, and its model trained."""
    (block,) = (block for block in code_blocks("README") if block.language == "sh")
    return dict(run_commands(block))


@pytest.fixture(scope="module")
def finished(project: Path, printed: dict[str, str]) -> Path:
    """The project after the README's commands, with a trained model for each layout that the pages name."""
    recipe, layouts = project / "recipe.toml", ("plain", "prepend-url", "meta-tokens")
    recipe.write_text("".join([recipe.read_text(), *(TRAININGS.format(layout=layout) for layout in layouts)]))
    for layout in layouts:
        called = colophon("train", "recipe.toml", "--name", layout)
        assert called.code == 0, called.err
    return project


def run_commands(block: Block) -> Iterator[tuple[str, str]]:
    """Run the lines of a block; yield the command's name and what it printed. A line that fails fails the test."""
    for line in re.sub(r"\\\n *", "", block.code).splitlines():
        words = shlex.split(line, comments=True)
        if words[0] == "colophon" and not {"|", ">", "&&"} & set(words):
            called = run_colophon(words[1:])
        else:
            called = run_in_shell(line)
        assert called.code == 0, f"{block.page}, line {block.line}: {line}\n{called.out}\n{called.err}"
        yield words[1], called.out


def run_colophon(arguments: list[str]) -> Called:
    """Call the command in this process, with less work than the page asks for where it has much."""
    return colophon(*arguments, *LESS_WORK.get(arguments[0], []))


def run_in_shell(line: str) -> Called:
    """Run a line of a shell, with `python` and `colophon` of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    command = ["bash", "-euc", line]
    done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=300, env=environment)
    return Called(done.returncode, done.stdout, done.stderr)


def test_blocks_have_a_known_language_and_commands_are_in_blocks_of_a_shell() -> None:
    for block in BLOCKS:
        where = f"{block.page}, line {block.line}"
        assert block.language in {"", "sh", "toml", "python"}, where
        assert block.language == "sh" or not re.search(r"^(\$ )?colophon [a-z]", block.code, re.MULTILINE), where
    for name in PAGES.keys() - {"commands"}:  # which is written from the help of the commands
        assert not re.search(r"^ {4}colophon [a-z]", PAGES[name], re.MULTILINE), f"{name}: commands are in ```sh blocks"


def test_few_blocks_are_not_run_each_for_a_reason() -> None:
    """A block that is not run has a reason. A machine that tests do not have is one for any number of blocks."""
    left_out = [block for block in BLOCKS if block.not_run and block.language]
    for block in left_out:
        assert str(block.not_run).startswith(REASONS), f"{block.page}, line {block.line}: {block.not_run}"
    avoidable = [block for block in left_out if not str(block.not_run).startswith(REASONS[:3])]
    counts = Counter(block.page for block in avoidable)
    counts.pop("tutorial")  # the commands of `make demo`
    assert sum(counts.values()) <= 13, counts


def test_the_commands_of_the_readme_do_what_it_states(project: Path, printed: dict[str, str]) -> None:
    assert "all laws of the layouts hold" in printed["verify"]
    assert "accuracy" in printed["train-classifier"]
    assert "https://www0.example.com/0/0" in printed["inspect"]
    assert (project / "out/web/training/tiny/metrics.jsonl").read_text().count('"loss"') == 2
    exported = pq.read_table(project / "out/annotated")
    assert exported.num_rows == 240
    assert {"text", "url_host", "quality", "quality_score"} <= set(exported.column_names)


@pytest.mark.parametrize(
    "page", sorted({block.page for block in BLOCKS if block.language in {"sh", "python"} and not block.not_run})
)
def test_the_commands_and_the_python_of_a_page_run(page: str, finished: Path) -> None:
    for block in code_blocks(page):
        if block.not_run:
            continue
        if block.language == "sh" and page != "README":
            assert list(run_commands(block))
        elif block.language == "python":
            exec(compile(block.code, f"{page}.md", "exec"), {"__name__": "page"})
    if page == "CONTRIBUTING":
        dataset = PackedDataset.open(finished / "out/web", "prepend-url")
        ids = np.fromfile(finished / "out/flat/ids.bin", dataset.id_dtype).reshape(len(dataset), -1)
        assert (ids == dataset.rows(range(len(dataset))).input_ids).all()


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.language == "toml" and block.page != "recipe-reference"],
    ids=lambda block: f"{block.page}-{block.line}",
)
def test_a_recipe_in_a_page_loads(block: Block) -> None:
    """The page recipe-reference has those of the docstrings, which tests of their own load."""
    if "project" not in tomllib.loads(block.code):  # a table of pyproject.toml
        load_example(block.code)
