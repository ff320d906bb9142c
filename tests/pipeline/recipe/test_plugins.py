"""`[plugins]` of a recipe: which files, from where, and only if the user allows that they run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import colophon
from colophon.annotators.plugin_files import MAX_PLUGIN_BYTES
from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.loading import load_recipe, parse_recipe
from colophon.pipeline.recipe.plugins import plugins_allowed
from tests.annotators.plugins import plugin_source

RECIPE = """
[input]
paths = ["data.jsonl"]
[output]
path = "out"
[plugins]
files = {files}
[annotators.words]
"""
RAN = "\nfrom pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a recipe with a plugin; the working directory is another."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine.py").write_text(plugin_source() + RAN)
    write_recipe(home, '["mine.py"]')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("COLOPHON_PLUGINS", raising=False)
    return home


def write_recipe(home: Path, files: str) -> None:
    (home / "recipe.toml").write_text(RECIPE.format(files=files))


def error_of(home: Path, *, plugins: bool = True) -> str:
    with pytest.raises(UsageError) as caught:
        load_recipe(str(home / "recipe.toml"), plugins=plugins)
    line = str(caught.value)
    assert "\n" not in line
    return line.removeprefix(f"{home}/recipe.toml: ")


def test_a_plugin_runs_only_where_the_user_allows_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = (
        "plugins.files: mine.py: the recipe would run this Python code with your rights. Read it, then add --plugins "
        f"(plugins=True in Python), or set COLOPHON_PLUGINS={home}"
    )
    for listed in ("", "1", ".", str(home.parent / "elsewhere"), f"{home}s", "relative"):
        monkeypatch.setenv("COLOPHON_PLUGINS", listed)
        assert error_of(home, plugins=False) == refused
    assert not (home / "ran").exists()
    monkeypatch.setenv("COLOPHON_PLUGINS", f"/nowhere{os.pathsep}{home.parent}")
    assert list(load_recipe(str(home / "recipe.toml")).annotators) == ["words"]
    assert (home / "ran").exists()


def test_a_call_allows_plugins_for_itself_alone(home: Path) -> None:
    name = str(home / "recipe.toml")
    with plugins_allowed():
        recipe = load_recipe(name)
    assert recipe == colophon.load_recipe(name, plugins=True)
    assert recipe.plugins.files == ["mine.py"]
    assert "--plugins" in error_of(home, plugins=False)
    with pytest.raises(UsageError, match="--plugins"):
        colophon.run(name)


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ('["none.py"]', "plugins.files: none.py: no such file in {home}"),
        ('["mine.py", "none.py"]', "plugins.files: none.py: no such file in {home}"),
        ('["folder.py"]', "plugins.files: folder.py: is not a regular file in {home}"),
        ('["pipe.py"]', "plugins.files: pipe.py: is not a regular file in {home}"),
        ('["loop.py"]', "plugins.files: loop.py: no such file in {home}"),
        ('["../outside.py"]', "plugins.files: ../outside.py: must be inside the recipe's directory, {home}"),
        ('["link.py"]', "plugins.files: link.py: must be inside the recipe's directory, {home}"),
        ('["folder.py/../../outside.py"]', "plugins.files: folder.py/../../outside.py: must be inside the recipe's"),
        ('["{home}/mine.py"]', "plugins.files: {home}/mine.py: must be inside the recipe's directory, {home}"),
        ('["mine.txt"]', "plugins.files: mine.txt: must be a Python file, NAME.py"),
        ('["https://example.org/mine.py"]', "plugins.files: https://example.org/mine.py: no such file in {home}"),
        ('["a\\u0000.py"]', "plugins.files: a\0.py: must be a Python file, NAME.py"),
        ('[""]', "plugins.files: : must be a Python file, NAME.py"),
        ('["mine.py", "./mine.py"]', "plugins.files: mine.py: is listed twice"),
        (f'["{"x" * 300}.py"]', f"plugins.files: {'x' * 300}.py: File name too long"),
        ('["large.py"]', "plugins.files: large.py: has more than 1048576 bytes"),
        ('"mine.py"', "plugins.files: must be a list, got 'mine.py'"),
        ("[1]", "plugins.files.0: must be a string, got 1"),
        ('["wide.py"]', "plugins.files: wide.py: UTF-16, not UTF-8. Convert it: iconv"),
        ('["broken.py"]', "plugins.files: broken.py: NameError: name 'y' is not defined (broken.py:2)"),
        ('["mine.py", "twin.py"]', "plugins.files: twin.py: an annotator named 'words' exists: mine.py"),
        ('["url.py"]', "plugins.files: url.py: an annotator named 'url' exists: built in"),
        ("[]", "annotators.words: unknown annotator 'words'; available: "),
    ],
)
def test_a_file_that_cannot_be_a_plugin_is_one_line(home: Path, files: str, line: str) -> None:
    (home / "twin.py").write_text(plugin_source())
    (home / "url.py").write_text(plugin_source("url"))
    (home / "broken.py").write_text("\nx = y\n")
    (home / "wide.py").write_text(plugin_source(), encoding="utf-16")
    (home / "large.py").write_bytes(b"#" * (MAX_PLUGIN_BYTES + 1))
    (home / "folder.py").mkdir()
    os.mkfifo(home / "pipe.py")
    (home / "loop.py").symlink_to("loop.py")
    (home.parent / "outside.py").write_text(plugin_source())
    (home / "link.py").symlink_to("../outside.py")
    write_recipe(home, files.format(home=home))
    assert error_of(home).startswith(line.format(home=home))


def test_a_link_inside_of_the_directory_and_a_folder_are_allowed(home: Path) -> None:
    (home / "code").mkdir()
    (home / "mine.py").rename(home / "code/mine.py")
    (home / "link.py").symlink_to("code/mine.py")
    for files in ('["code/mine.py"]', '["link.py"]'):
        write_recipe(home, files)
        assert list(load_recipe(str(home / "recipe.toml"), plugins=True).annotators) == ["words"]


def test_a_recipe_that_is_no_file_has_no_plugins() -> None:
    raw = {"input": {"paths": "x"}, "output": {"path": "y"}, "plugins": {"files": ["mine.py"]}}
    with pytest.raises(UsageError, match=r"^r: plugins\.files: are beside a recipe file; this recipe is not a file$"):
        parse_recipe(raw, where="r", plugins=True)
    with pytest.raises(UsageError, match=r"^r: plugins must be a table, \[plugins\]$"):
        parse_recipe({**raw, "plugins": ["mine.py"]}, where="r")
    with pytest.raises(UsageError, match=r"^r: plugins\.file: unknown key; available: files\. Did you mean 'files'\?$"):
        parse_recipe({**raw, "plugins": {"file": ["mine.py"]}}, where="r")


def test_settings_of_a_plugin_are_checked_as_those_of_others(home: Path) -> None:
    recipe = home / "recipe.toml"
    recipe.write_text(recipe.read_text() + "prefx = 1\n")
    line = "annotators.words.prefx: unknown key; available: prefix, words. Did you mean 'prefix'?"
    assert error_of(home) == line
    raising = "    def __init__(self, **values):\n        raise KeyError('x')\n\n    def build"
    (home / "mine.py").write_text(plugin_source().replace("    def build", raising, 1))
    write_recipe(home, '["mine.py"]')
    assert "annotators.words: KeyError" in error_of(home)
