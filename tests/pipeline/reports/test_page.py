"""`colophon report`: numbers agree with the files, hostile text is harmless, and a browser draws every chart."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections import Counter
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.parsers.expat import ParserCreate

import pytest

from colophon.pipeline.errors import printable
from colophon.pipeline.reports.page import columns, images, markup, page, scans
from colophon.pipeline.reports.page.columns import Distribution, distributions
from colophon.pipeline.reports.page.packed import lengths
from colophon.pipeline.reports.page.relations import relations
from colophon.pipeline.reports.page.trainings import Trainings, evaluation_parts
from colophon.shards.manifest import read_manifest
from colophon.shards.run_output import RunOutput, open_run
from tests.hostile import SOURCE, write_hostile_run
from tests.pipeline.project import ROWS_OF_FILES, colophon, snapshot

REPORT = Path("out/report/report.html")


# numbers


@pytest.fixture
def opened(finished: Path) -> RunOutput:
    return open_run("out")


def by_name(run: RunOutput) -> dict[str, Distribution]:
    return {one.name: one for one in distributions(run)}


def values(run: RunOutput, name: str) -> list[Any]:
    found: list[Any] = run.annotations().collect()[name].to_list()
    return found


def test_classes_are_counted(opened: RunOutput) -> None:
    found = by_name(opened)
    for name in ("crawl_year", "url_host"):
        known = Counter(value for value in values(opened, name) if value is not None)
        one = found[name]
        assert (one.kind, one.documents, one.known) == ("classes", sum(ROWS_OF_FILES), known.total())
        assert dict(one.counts) == known
        assert one.distinct == len(known)
        assert [n for _, n in one.counts] == sorted(known.values(), reverse=True)


def test_numbers_are_in_bins(opened: RunOutput) -> None:
    (one,) = [one for one in by_name(opened).values() if one.kind == "numbers"]
    known = [value for value in values(opened, one.name) if value is not None]
    assert one.bins is not None
    assert (one.bins.low, one.bins.high) == (min(known), max(known))
    assert sum(n for _, n in one.counts) == one.known == len(known)
    for index, n in one.counts[:-1]:
        low, high = one.bins.edges(int(index))
        assert n == pytest.approx(sum(low <= value < high for value in known), abs=1)


def test_many_small_queries_give_the_same_numbers(opened: RunOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    def numbers() -> list[Any]:
        found = list(distributions(opened))
        pairs = [(one.information, one.documents.tolist()) for one in relations(opened, found, most=20)]
        return [[(one.name, one.kind, one.counts, one.bins) for one in found], pairs]

    whole = numbers()
    monkeypatch.setattr(scans, "ROWS_PER_QUERY", 40)
    assert len(list(scans.batches(opened, ["url"]))) > 3
    assert numbers() == whole


def test_the_values_in_memory_are_bounded(opened: RunOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = dict(by_name(opened)["url_host"].counts)
    monkeypatch.setattr(scans, "ROWS_PER_QUERY", 40)
    monkeypatch.setattr(columns, "_MOST_VALUES", 6)
    monkeypatch.setattr(columns, "_KEPT_VALUES", 4)
    one = by_name(opened)["url_host"]
    assert not one.is_complete
    assert len(one.counts) <= 6 < len(exact)
    assert all(n <= exact[value] for value, n in one.counts)


def test_a_column_of_different_values_is_not_counted_to_its_end(
    opened: RunOutput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "_FEWEST_UNIQUE", 50)
    assert by_name(opened)["url"].kind == "unique"
    monkeypatch.setattr(scans, "ROWS_PER_QUERY", 80)
    monkeypatch.setattr(columns, "_MOST_VALUES", 40)
    one = by_name(opened)["url"]
    assert (one.kind, one.documents, one.is_complete) == ("unique", sum(ROWS_OF_FILES), False)
    assert 40 < one.distinct < one.known


def test_relations_are_counted(opened: RunOutput) -> None:
    found = {(one.across.name, one.down.name): one for one in relations(opened, list(distributions(opened)), most=20)}
    one = next(one for names, one in found.items() if set(names) == {"crawl_year", "url_host"})
    counted = Counter(zip(values(opened, one.across.name), values(opened, one.down.name), strict=True))
    across, down = one.values
    assert one.documents.tolist() == [[counted[x, y] for x in across] for y in down]
    assert all(pair.across.annotator != pair.down.annotator for pair in found.values())
    informations = [pair.information for pair in found.values()]
    assert informations == sorted(informations, reverse=True)
    assert min(informations) >= 0


def test_a_heat_map_has_a_table_of_its_numbers(opened: RunOutput) -> None:
    found = relations(opened, list(distributions(opened)), most=6)
    parts = "".join(page._relations(found, markup.Charts()))
    assert parts.count("<details><summary><bdi>Numbers") == parts.count("<figure>") == len(found) > 1
    one = found[0]
    rows = page._pairs(one).split("<tr>")[2:]
    for row, numbers in zip(rows, one.documents.tolist(), strict=True):
        assert row.count('<th scope="row">') == 1
        cells = re.findall('<td class="n"><bdi>([0-9,]+)', row)
        assert [int(cell.replace(",", "")) for cell in cells] == [*numbers, sum(numbers)]


def test_lengths_are_those_of_the_token_files(opened: RunOutput) -> None:
    tokens = sorted(len(ids) for ids in opened.tokens().collect()["input_ids"].to_list())
    found = lengths(opened)
    assert found.documents.sum() == len(tokens) == sum(ROWS_OF_FILES)
    assert sum(n for *_, n in found.by_power()) == len(tokens)
    assert found.by_power()[0] == (0, 0, tokens.count(0))
    assert found.quantile(0.5) == tokens[len(tokens) // 2 - 1]


# the command


def test_a_report_is_written_into_the_output(finished: Path) -> None:
    called = colophon("report", "recipe.toml", "--json")
    assert (called.code, called.err) == (0, "")
    result = json.loads(called.out)
    text = REPORT.read_text(encoding="utf-8")
    assert (result["path"], result["bytes"]) == (str(REPORT), len(text.encode()))
    assert result["documents"] == sum(ROWS_OF_FILES)
    assert result["charts"] == text.count('class="chart"') > 5
    expected = ["Documents", "Annotations", "Relations", "Layouts", "Sequences", "Time", "Quarantine", "Provenance"]
    assert [name for name in result["sections"] if name in expected] == expected
    assert "Training" not in result["sections"]
    assert 'class="run meta masked"' in text
    assert 'title="metadata, loss weight 0, document ' in text
    assert "Cost against plain" in text
    assert "Sources" not in result["sections"]
    assert colophon("verify", "recipe.toml").code == 0
    assert colophon("report", "out", "--to", "elsewhere/page.html").code == 0
    assert Path("elsewhere/page.html").read_text(encoding="utf-8") == text


def test_each_chart_is_written_as_png_and_svg(finished: Path) -> None:
    called = colophon("report", "recipe.toml", "--charts", "out/report/charts", "--json")
    assert (called.code, called.err) == (0, "")
    result = json.loads(called.out)
    files = [Path(name) for name in result["images"]]
    assert len(files) == 2 * result["charts"]
    assert sorted(files) == sorted(Path("out/report/charts").iterdir())
    assert {"tokens-of-documents", "crawl-year-crawl", "tokens-by-role"} < {path.stem for path in files}
    for path in files:
        start = b"\x89PNG\r\n" if path.suffix == ".png" else b"<svg "
        assert path.read_bytes().startswith(start)
    roles = Path("out/report/charts/tokens-by-role.svg").read_text(encoding="utf-8")
    assert all(f">{name}<" in roles for name in ("prepend-url", "metadata", "Tokens by role"))
    assert colophon("verify", "recipe.toml").code == 0


def test_a_link_in_the_place_of_an_image_is_not_followed(finished: Path) -> None:
    Path("precious").write_text("kept")
    Path("charts").mkdir()
    Path("charts/tokens-by-role.svg").symlink_to(Path("precious").resolve())
    called = colophon("report", "recipe.toml", "--charts", "charts")
    assert called.code == 2
    assert called.line.startswith("charts/tokens-by-role.svg: a symbolic link, not a regular file")
    assert (Path("precious").read_text(), len(list(Path("charts").iterdir()))) == ("kept", 1)
    assert not REPORT.exists()


def test_names_of_images_are_letters_digits_and_hyphens(tmp_path: Path) -> None:
    titles = ["../../etc/x.y", "Etc x y", "\x00\u202e", "…", "a: b", "x" * 5_000]
    drawn = [markup.Chart(title=title, spec={}) for title in titles]
    names = ["etc-x-y", "etc-x-y-2", "chart", "chart-2", "a", "x" * 60]
    expected = [(tmp_path / f"{name}.png", tmp_path / f"{name}.svg") for name in names]
    assert images.image_paths(drawn, tmp_path) == expected


def test_curves_and_evaluations_are_shown(finished: Path) -> None:
    directory = Path("out/training/tiny")
    directory.mkdir(parents=True)
    step = {"loss": 2.5, "text_loss": 2.25, "tokens": 10, "text_tokens": 9, "tokens_per_second": 5, "lr": 1e-3}
    lines = [{"step": number, **step} for number in (1, 2)] + [{"step": 2, "validation_text_loss": 2.125}]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "evaluation.json").write_text('{"differences": [], "by": []}')
    (directory / "evaluation-x.json").write_text("{")
    (directory / "evaluation-y.json").mkdir()
    called = colophon("report", "recipe.toml")
    assert called.code == 2
    assert called.line.startswith("out/training/tiny/evaluation-y.json: a directory, not a regular file")
    (directory / "evaluation-y.json").rmdir()
    assert json.loads(colophon("report", "recipe.toml", "--json").out)["sections"][-4:-2] == ["Training", "Evaluation"]
    text = REPORT.read_text(encoding="utf-8")
    assert "2.1250" in text
    assert text.count("It is damaged, or of a different version.") == 2


def test_an_evaluation_is_the_tables_of_the_terminal() -> None:
    losses = {"value": 1.5, "low": 1.25, "high": 1.75}
    conditions = {"none": {"nats_per_token": losses, "bits_per_byte": losses, "seen_in_training": True}}
    evaluation = {
        "model": "<b>tiny", "layout": "plain", "conditions": conditions, "differences": [], "metadata": None,
        "by": {}, "resamples": 1000,
    }  # fmt: skip
    evaluations = Trainings(evaluations={"tiny/evaluation.json": evaluation})
    text = markup.joined(list(evaluation_parts(evaluations, markup.Charts())))
    assert "1.5000 [1.2500, 1.7500]" in text
    assert "&lt;b&gt;tiny" in text


def _evaluation(model: str, conditions: tuple[str, ...], against: list[tuple[str, str, str, str]]) -> dict[str, Any]:
    """One of the two evaluations of a call; differences are (kind, condition, other model, its condition)."""
    losses = {"value": 1.5, "low": 1.25, "high": 1.75}
    found = {"nats_per_token": losses, "bits_per_byte": losses, "seen_in_training": True}
    estimate = {"value": -0.125, "low": -0.25, "high": None if model == "plain" else 0.0625}
    documents = {"documents": 9, "crop": 126, "tokens": 900, "bytes": 4_000, "origin": "held_out", "output": "out"}
    differences = [
        {"kind": kind, "condition": one, "against": {"model": other, "condition": base}, "bits_per_byte": estimate}
        for kind, one, other, base in against
    ]
    return {
        "model": model, "layout": model, "conditions": dict.fromkeys(conditions, found), "differences": differences,
        "metadata": None, "by": {}, "resamples": 1000, "documents": documents, "step": 60,
    }  # fmt: skip


def test_evaluations_of_one_call_are_compared_in_a_chart() -> None:
    true, control = ("models", "true", "plain", "none"), ("control", "shuffled", "<b>url", "true")
    evaluations = {
        "url/evaluation.json": _evaluation("<b>url", ("true", "shuffled"), [true, control]),
        "plain/evaluation.json": _evaluation("plain", ("none",), [("models", "none", "<b>url", "true")]),
        "plain/evaluation-alone.json": _evaluation("plain", ("none",), []),
    }
    figures = markup.Charts()
    text = markup.joined(list(evaluation_parts(Trainings(evaluations=evaluations), figures)))
    assert "<h3><bdi>url/evaluation.json, plain/evaluation.json</bdi></h3>" in text
    (chart,) = figures.drawn
    values = chart.spec["layer"][1]["data"]["values"]
    expected = ["<b>url true − plain none", "control: <b>url shuffled − <b>url true"]
    assert [row["compared"] for row in values] == expected
    assert {(row["low"], row["value"], row["high"]) for row in values} == {(-0.25, -0.125, 0.0625)}
    assert "-0.1250 [-0.2500, +0.0625]" in text
    assert chart.note[0] == "The first 126 tokens of 9 documents. Steps of training: <b>url 60, plain 60."
    assert "Steps of training: &lt;b&gt;url 60, plain 60." in text


def test_times_that_are_damaged_or_missing_are_left_out(finished: Path) -> None:
    Path("out/report/run.json").write_text('{"passes": {"pack": {}}, "start": {"seconds": 1}}')
    assert colophon("report", "recipe.toml").code == 0
    assert "report/run.json is damaged" in REPORT.read_text(encoding="utf-8")
    Path("out/report/run.json").unlink()
    assert "Time" not in json.loads(colophon("report", "recipe.toml", "--json").out)["sections"]


@pytest.mark.parametrize(
    ("tokenizer", "reason"),
    [
        ({"name": "gpt2"}, "tokenizer gpt2 may have to be downloaded: name the recipe in place of its output"),
        ({"name": "hf:x/y"}, "tokenizer hf:x/y may have to be downloaded"),
        ({"name": "tekken"}, "tokenizer tekken is not the one that wrote the files"),
        ({"path": "missing.tiktoken"}, "missing.tiktoken"),
        (7, "the manifest has no tokenizer that this Colophon knows"),
    ],
)
def test_a_manifest_chooses_no_download(opened: RunOutput, tokenizer: object, reason: str) -> None:
    from colophon.pipeline.cli.report import _recorded_tokenizer

    recipe = {**opened.manifest.recipe, "tokenizer": tokenizer}
    opened.__dict__["manifest"] = opened.manifest.model_copy(update={"recipe": recipe})
    (line,) = page._sequences(opened, ["plain"], lambda: _recorded_tokenizer(opened))
    assert "No sequences are shown: " in line
    assert reason in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "data"), "data/manifest.json does not exist: data is not the output of a finished run"),
        (("report", "out", "--set", "a=1"), "report: --set changes a recipe, and out is a directory"),
        (("report", "recipe.toml", "--set", "output.path=none"), "none/manifest.json does not exist"),
        (("report", "recipe.toml", "--charts", "s3://bucket/x"), "--charts: must be a local path, not a URL"),
        (("report", "recipe.toml", "--charts", "recipe.toml"), "--charts: recipe.toml exists and is not a directory"),
        (("report", "recipe.toml", "--to", "s3://bucket/page.html"), "--to: must be a local path, not a URL"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(finished: Path, arguments: tuple[str, ...], message: str) -> None:
    before = snapshot()
    called = colophon(*arguments)
    assert called.code == 2
    assert called.line.startswith(message)
    assert snapshot() == before


def test_a_link_in_the_place_of_the_report_is_not_followed(finished: Path) -> None:
    Path("precious").write_text("kept")
    REPORT.symlink_to(Path("precious").resolve())
    called = colophon("report", "recipe.toml")
    assert called.code == 2
    assert called.line.startswith("out/report/report.html: a symbolic link, not a regular file")
    assert Path("precious").read_text() == "kept"


@pytest.mark.parametrize("output", ["annotations/url", "tokens", "packed/plain"])
@pytest.mark.parametrize("size", [0, None])
def test_a_damaged_file_is_one_line(finished: Path, output: str, size: int | None) -> None:
    record = read_manifest(Path("out")).outputs[output].records[0]
    path = Path("out", record.path)
    path.write_bytes(b"x" * (record.bytes if size is None else size))
    called = colophon("report", "recipe.toml")
    if output == "packed/plain":  # the rest of the page needs none of it
        assert called.code == 0
        assert "No sequences are shown: " in REPORT.read_text(encoding="utf-8")
    else:
        assert called.code == 2
        assert called.line.startswith("out/")
        assert not REPORT.exists()


# hostile text


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run whose documents, URLs, labels, layouts and file names attack it."""
    root = tmp_path_factory.mktemp("hostile")
    recipe = write_hostile_run(root)
    called = colophon("report", str(recipe), "--charts", str(root / "charts"))
    assert (called.code, called.err) == (0, "")
    return root / "out/report/report.html"


class Parsed(HTMLParser):
    """The tags of a page, with the content of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def test_text_from_data_is_no_markup(hostile: Path) -> None:
    parsed = Parsed(hostile.read_text(encoding="utf-8"))
    assert parsed.tags["script"] == 3
    assert parsed.tags["img"] == parsed.tags["b"] == parsed.tags["iframe"] == 0
    assert not [name for name, _ in parsed.attributes if name.startswith("on") or name in ("src", "action", "data")]
    assert all(value.startswith("#") for name, value in parsed.attributes if name == "href")
    specs = json.loads(parsed.scripts[0])
    assert specs
    assert not re.search(r'"(url|href|signal|expr|calculate|transform|params)":', parsed.scripts[0])


def test_a_named_source_has_its_counts_on_the_page(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    section = text[text.index('<section id="sources">') : text.index('<section id="annotations">')]
    name, *numbers = re.findall("<td[^>]*><bdi>(.*?)</bdi>", section)
    documents = open_run(hostile.parents[1]).tokens().collect()["input_ids"].to_list()
    tokens = sum(len(ids) for ids in documents)  # each is a byte of the text
    assert unescape(name) == SOURCE
    assert numbers == ["1", f"{len(documents):,}", f"{tokens / 1e6:.1f}", f"{tokens:,}"]
    assert "Tokens by source" in section


def test_text_from_data_is_no_markup_of_an_image(hostile: Path) -> None:
    paths = list((hostile.parents[2] / "charts").glob("*.svg"))
    assert "tokens-by-source.svg" in {path.name for path in paths}
    for path in paths:
        parsed = Parsed(path.read_text(encoding="utf-8"))
        assert set(parsed.tags) <= {"svg", "rect", "g", "path", "text", "line", "lineargradient", "stop", "defs"}
        assert not [name for name, _ in parsed.attributes if name.startswith("on") or name.endswith(("href", "src"))]
        ParserCreate().Parse(path.read_bytes(), True)


def test_the_policy_allows_the_two_scripts_alone(hostile: Path) -> None:
    parsed = Parsed(hostile.read_text(encoding="utf-8"))
    policy = dict(parsed.attributes)["http-equiv"], next(v for _, v in parsed.attributes if v.startswith("default-src"))
    allowed = re.findall(r"'sha256-([^']+)'", policy[1])
    assert [b64encode(sha256(script.encode()).digest()).decode() for script in parsed.scripts[1:]] == allowed
    assert "script-src 'sha256-" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert "unsafe-eval" not in policy[1]
    assert "connect-src" not in policy[1]


def test_controls_are_visible_and_long_texts_are_cut(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    body = text[: text.index('<script type="application/json"')]
    assert printable(body) == body
    assert "\\u202eright to left\\u2066" in body
    assert len(body) < 1_000_000
    assert "x" * 5_000 not in body
    assert "broken&lt;script&gt;.parquet" in body
