"""The pages are true: commands and code run, keys, options, links and recipes exist, tables are the results'."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
import yaml

from benchmarks import show
from colophon import __version__
from colophon.annotators.base import annotator_types
from colophon.pipeline import cli
from colophon.pipeline.recipe import loading
from colophon.shards import layouts
from tests.pages import PAGES, README, ROOT, TOP, code_blocks, place

CONTRIBUTING = TOP["CONTRIBUTING"]


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
        for target, _, heading in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", text)):
            if "://" in target:
                continue
            path = place(name).parent / target if target else place(name)
            assert path.exists(), f"{name}.md: no file {target}"
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
            slugs = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
            assert not heading or heading in slugs, f"{name}.md: {target} has no heading #{heading}"


def test_the_rooms_of_the_readme_exist() -> None:
    (tree,) = (block.code for block in code_blocks("README") if "annotators/ " in block.code)
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
    assert len(commands) == 9
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
