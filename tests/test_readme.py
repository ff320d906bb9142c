"""What README.md and docs/ say is so: the commands run, the keys and recipes exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from colophon.annotators.base import annotator_types
from colophon.pipeline.recipe import loading
from colophon.pipeline.recipe import schema as recipes
from colophon.shards import layouts
from colophon.trainer import config as training

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the README's user has: data, labels, and the recipe saved as it says."""
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


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_the_commands_run_one_after_the_other(workplace: Path) -> None:
    """Through Ray, as they stand; and then the Python that reads the result."""
    (shell,) = blocks("sh")
    printed = {}
    for line in shell.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "colophon"
        printed[words[1]] = run(["-m", "colophon", *words[1:]], cwd=workplace)
    assert "all laws hold" in printed["verify"]
    assert "accuracy" in printed["train-classifier"]
    assert "https://www.example.com/0/0" in printed["inspect"]
    assert (workplace / "out/web/training/tiny/metrics.jsonl").read_text().count('"loss"') == 20
    exported = pq.read_table(workplace / "out/annotated")
    assert exported.num_rows == 240
    assert {"text", "url_host", "quality", "quality_score"} <= set(exported.column_names)
    (python,) = blocks("python")
    run(["-c", python], cwd=workplace)


def test_recipes_named_in_the_readme_are_shipped() -> None:
    named = re.search(r"recipes that come along: (.*?)\.\s", README.replace("\n", " "))
    assert named is not None
    assert set(re.findall(r"`([\w-]+)`", named[1])) == set(loading.shipped_recipes())


def test_make_targets_named_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z ]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    known = {word for group in targets for word in group.split()}
    named = set(re.findall(r"`?make ([a-z]+)(?:`| RECIPE|\n```)", README))
    assert {"demo", "test", "check", "annotate"} <= named <= known


@pytest.mark.parametrize("name", sorted(loading.shipped_recipes()))
def test_shipped_recipes_are_valid_and_say_what_they_are(name: str) -> None:
    loading.load_recipe(name)
    assert loading.shipped_recipes()[name].read_text().startswith("# ")


SECTIONS: list[tuple[str, type[BaseModel]]] = [
    ("recipes", recipes.InputSection),
    ("recipes", recipes.OutputSection),
    ("recipes", recipes.PackSection),
    ("recipes", recipes.RaySection),
    ("recipes", recipes.TokenizerConfig),
    ("recipes", layouts.PlainLayout),
    ("recipes", layouts.PrependLayout),
    ("recipes", layouts.AppendLayout),
    ("recipes", layouts.MetaTokensLayout),
    ("recipes", training.TrainConfig),
    ("recipes", training.ModelConfig),
    ("recipes", training.AdamWConfig),
    ("recipes", training.AdEMAMixConfig),
    ("recipes", training.MuonConfig),
    ("recipes", training.GoldfishConfig),
    ("recipes", training.SourceConfig),
    ("recipes", training.PhaseConfig),
    ("recipes", training.CurriculumConfig),
    ("recipes", training.CosineSchedule),
    ("recipes", training.WsdSchedule),
    *(("annotators", config) for config in annotator_types().values()),
]


@pytest.mark.parametrize(("document", "section"), SECTIONS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_every_key_of_a_recipe_is_documented(document: str, section: Any) -> None:
    text = (ROOT / "docs" / f"{document}.md").read_text(encoding="utf-8")
    missing = [name for name in section.model_fields if f"`{name}" not in text]
    assert not missing, f"docs/{document}.md does not name {missing}"


def test_every_annotator_has_a_section() -> None:
    text = (ROOT / "docs" / "annotators.md").read_text(encoding="utf-8")
    assert {f"## `{name}`" for name in annotator_types()} <= set(text.splitlines())
