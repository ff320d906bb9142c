"""Spellings of local paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from colophon.shards.common.paths import absolute_path, local_path, why_missing


@pytest.mark.parametrize(
    ("spelled", "path"),
    [
        ("out", "out"),
        ("out/", "out"),
        ("file:///data/x", "/data/x"),
        ("file:/data/x/", "/data/x"),
        ("file://localhost/data/x", "/data/x"),
        ("local:///data/a b%20c", "/data/a b%20c"),
        ("file:out", "out"),
        ("s3://bucket/x", "s3://bucket/x"),
        ("memory://x/", "memory://x/"),
        ("files/out", "files/out"),
    ],
)
def test_a_file_url_is_its_path(spelled: str, path: str) -> None:
    assert local_path(spelled) == path


@pytest.mark.parametrize("spelled", ["~/x", "file://~/x", "file:~/x"])
def test_the_home_directory_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spelled: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_path(spelled) == absolute_path(spelled) == f"{tmp_path}/x"


def test_a_user_without_a_home_directory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for spelled in ("~no-such-user/x", "file:~no-such-user/x"):
        with pytest.raises(ValueError, match="no home directory is known for the ~ in it; set HOME"):
            local_path(spelled)


def test_a_file_url_of_another_machine_is_refused() -> None:
    with pytest.raises(ValueError, match=r"file://node7/x: node7 is a machine; write file:///PATH, or the path alone"):
        local_path("file://node7/x")


def test_a_relative_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_path("a/b") == f"{tmp_path}/a/b"
    assert absolute_path("hf://datasets/x") == "hf://datasets/x"


def test_the_link_that_leads_nowhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    for link, target in {"good": "there", "gone": "not/there", "circle": "circle", "good/inner": "gone"}.items():
        Path(link).symlink_to(target)
    missing, circle = (
        "a link whose target is missing",
        "a link that cannot be followed, Too many levels of symbolic links",
    )
    for path, reason in {
        "gone": f"{missing}: not/there",
        "gone/x/y": f"gone is {missing}: not/there",
        "good/inner/x": f"good/inner is {missing}: gone",
        "circle": f"{circle}: circle",
        "circle/x": f"circle is {circle}: circle",
        "good/x": "no such file",
        "x" * 300: "no such file",
    }.items():
        assert why_missing(path) == reason
