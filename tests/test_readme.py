"""The pages are true: commands and code run, keys, options, links and recipes exist, tables are the results'."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
import yaml

from benchmarks import show
from colophon import __version__
from colophon.annotators.base import annotator_types
from colophon.pipeline import cli
from colophon.pipeline.recipe import loading
from colophon.shards import layouts
from colophon.shards.reader import PackedDataset

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
TOP = {path.stem: path.read_text(encoding="utf-8") for path in ROOT.glob("*.md")}
"""The pages beside the README, which is one of them."""
CONTRIBUTING = TOP["CONTRIBUTING"]


def blocks(language: str, text: str = README) -> list[str]:
    """The content of each fenced block; a language of "" is a block without one."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [content for of, content in fenced if of == language]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's directory: data, labels, and the recipe of the README."""
    root = tmp_path_factory.mktemp("user")
    (root / "data").mkdir()
    (root / "labels").mkdir()
    good = [f"The {i}th theorem follows from the lemma about compact spaces. " * (1 + i % 9) for i in range(120)]
    bad = [f"BUY NOW {i}!!! cheap cheap click here win prizes " * (1 + i % 5) for i in range(120)]
    texts = [text for pair in zip(good, bad, strict=True) for text in pair]
    for part in range(2):
        mine = texts[part::2]
        table = {
            "text": mine,
            "id": [f"<{part}-{i}>" for i in range(len(mine))],
            "url": [f"https://www.example.com/{part}/{i}" for i in range(len(mine))],
        }
        pq.write_table(pa.table(table), root / "data" / f"part-{part}.parquet")
    labels = ["high", "low"] * 120
    for name, rows in (("train", slice(0, 160)), ("test", slice(160, 240))):
        pq.write_table(pa.table({"text": texts[rows], "label": labels[rows]}), root / "labels" / f"{name}.parquet")
    (toml,) = blocks("toml")
    (root / "recipe.toml").write_text(toml)
    return root


def run(command: list[str], *, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        text=True,
        capture_output=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_commands_run_one_after_the_other(workplace: Path) -> None:
    """The README's commands, unchanged, and then the Python of three pages on their output."""
    (shell,) = blocks("sh")
    printed = {}
    for line in shell.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "colophon"
        printed[words[1]] = run(["-m", "colophon", *words[1:]], cwd=workplace)
    assert "all laws of the layouts hold" in printed["verify"]
    assert "accuracy" in printed["train-classifier"]
    assert "https://www.example.com/0/0" in printed["inspect"]
    assert (workplace / "out/web/training/tiny/metrics.jsonl").read_text().count('"loss"') == 20
    exported = pq.read_table(workplace / "out/annotated")
    assert exported.num_rows == 240
    assert {"text", "url_host", "quality", "quality_score"} <= set(exported.column_names)
    for text in (README, PAGES["format"], CONTRIBUTING):
        (python,) = blocks("python", text)
        run(["-c", python], cwd=workplace)
    dataset = PackedDataset.open(workplace / "out/web", "prepend-url")
    ids = np.fromfile(workplace / "out/flat/ids.bin", dataset.id_dtype).reshape(len(dataset), -1)
    assert (ids == dataset.rows(range(len(dataset))).input_ids).all()


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


LAYOUTS: dict[str, layouts.LayoutConfig] = {
    "plain": layouts.PlainLayout(position="plain"),
    "prepend": layouts.PrependLayout(position="prepend", template="{url}"),
    "append": layouts.AppendLayout(position="append", template="{quality}"),
    "meta_tokens": layouts.MetaTokensLayout(position="meta_tokens"),
}
ROLES = {"boc": "wrapper", "eoc": "wrapper", "url": "metadata", "quality": "metadata", "m": "meta_token"}


@pytest.mark.parametrize("position", LAYOUTS)
def test_the_picture_of_a_layout_has_its_weights(position: str) -> None:
    (picture,) = re.findall(rf"^{position} +(bos .*)\n +(.*)$", README, re.MULTILINE)
    tokens, marks = ([word for word in line.split() if word != "…"] for line in picture)
    weights: dict[str, float] = {**LAYOUTS[position].weights()}
    expected = [weights[ROLES.get(token.rstrip("12345"), token)] for token in tokens]
    assert [{"1": 1.0, "·": 0.0}[mark] for mark in marks] == expected


def test_tables_of_measurements_are_those_of_the_results() -> None:
    """The README has the table of the repeated input; docs/speed.md has all of them."""
    results = ROOT / "benchmarks" / "results"
    headline = show.tables(results, only=show.REPEATED)
    assert headline in README, "README.md: paste the last table of `python -m benchmarks table`"
    for table in show.tables(results).split("\n\n"):
        assert table in PAGES["speed"], f"docs/speed.md: paste `python -m benchmarks table`; it lacks\n{table}"


def test_links_lead_to_files_and_headings() -> None:
    for name, text in {**TOP, **PAGES}.items():
        folder = ROOT if name in TOP else ROOT / "docs"
        for target, _, heading in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", text)):
            if "://" in target:
                continue
            path = folder / (target or f"{name}.md")
            assert path.exists(), f"{name}.md: no file {target}"
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
            slugs = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
            assert not heading or heading in slugs, f"{name}.md: {target} has no heading #{heading}"


def test_the_rooms_of_the_readme_exist() -> None:
    (tree,) = (block for block in blocks("", README) if "annotators/ " in block)
    entries = re.findall(r"^(\w+)/ +(.*(?:\n +.*)*)$", tree, re.MULTILINE)
    named = {package: set(re.findall(r"(\w+)/", description)) for package, description in entries}
    rooms = {
        package: {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        for package in ("annotators", "shards", "pipeline", "trainer")
    }
    assert named == {"colophon": set(), **rooms}


def test_recipes_named_in_the_readme_are_shipped() -> None:
    named = re.search(r"Bundled recipes: (.*?)\.\s", README.replace("\n", " "))
    assert named is not None
    assert set(re.findall(r"`([\w-]+)`", named[1])) == set(loading.shipped_recipes())


def test_make_targets_named_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {word for group in targets for word in group.split()}
    named = set(re.findall(r"(?:`|^ +)make ([a-z-]+)", "\n".join([*TOP.values(), *PAGES.values()]), re.MULTILINE))
    assert {"demo", "test", "check", "annotate", "docs", "bench", "bench-trainer", "soak"} <= named <= known


@pytest.mark.parametrize("name", sorted(loading.shipped_recipes()))
def test_shipped_recipes_are_valid_and_begin_with_a_description(name: str) -> None:
    loading.load_recipe(name)
    assert loading.shipped_recipes()[name].read_text().startswith("# ")


def test_every_annotator_has_a_section() -> None:
    assert {f"## `{name}`" for name in annotator_types()} <= set(PAGES["annotators"].splitlines())


COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


def command_lines(text: str) -> list[str]:
    """The lines of a page's code blocks that call `colophon`; output, and synopses in brackets, are none."""
    joined = re.sub(r"\\\n +", "", text)
    found = re.findall(r"^(?:    |\$ )?(colophon [a-z].*)$", joined, re.MULTILINE)
    return [re.split(r"  # | \| | > ", line)[0] for line in found if "[--" not in line]


@pytest.mark.parametrize("page", [*TOP, *PAGES])
def test_commands_and_options_exist(page: str) -> None:
    """Whole lines are parsed with all their arguments; commands within sentences have known names and options."""
    text = {**TOP, **PAGES}[page]
    for line in command_lines(text):
        _, name, *arguments = shlex.split(line)
        COMMANDS[name].make_context(name, arguments)
    for inline in re.findall(r"`colophon ([a-z][a-z-]*[^`]*)`", " ".join(text.split())):
        name, *arguments = inline.split()
        options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= options, inline


def test_the_tutorial_has_the_commands_of_the_demo() -> None:
    """Every command of `make demo`, but for those that it only prints, is a line of the tutorial."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    demo = makefile[makefile.index("DEMO :=") : makefile.index("@echo")]
    commands = set(re.findall(r"^\t\$\(COLOPHON\) ([a-z-]+)", demo, re.MULTILINE))
    assert len(commands) == 8
    assert commands <= {line.split()[1] for line in command_lines(PAGES["tutorial"])}


def test_paths_and_tests_named_for_contributors_exist() -> None:
    named = re.findall(
        r"`((?:annotators|colophon|examples|pipeline|recipes|shards|tests|trainer)/[\w./]*)`", CONTRIBUTING
    )
    assert len(named) > 25
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_the_citation_names_this_version_and_the_paper_of_the_readme() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == __version__
    (paper,) = citation["references"]
    assert f"[{paper['title']}]({paper['url']})" in README
