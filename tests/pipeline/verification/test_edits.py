"""`colophon verify` names every edit of the manifest, the records, the settings, the quarantine and the input."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from colophon.pipeline.storage.pass_record import settings_path
from colophon.pipeline.verification.report_numbers import report_findings
from colophon.pipeline.verification.verification import Verification
from tests.pipeline.commit_records import as_an_older_version, drop_records, edit_records
from tests.pipeline.project import colophon, manifest, resolved_recipe, run, write_documents, write_json_lines
from tests.pipeline.verification.helpers import EDITED, edit_manifest, edit_report, findings, verify

PART = "data/part-1.parquet"


def records(value: Any, output: str = "tokens") -> list[Any]:
    found: list[Any] = value["outputs"][output]["records"]
    return found


def drop_partition(value: Any) -> None:
    name = value["partitions"].pop(1)["name"]
    for output in value["outputs"].values():
        output["records"] = [record for record in output["records"] if record["partition"] != name]


def layout_of_another(value: Any) -> None:
    for mine, other in zip(records(value, "packed/plain"), records(value, "packed/meta-tokens"), strict=True):
        mine.update({key: other[key] for key in ("path", "rows", "bytes", "sha256")})


def rows_of_tokens(value: Any) -> None:
    record = records(value)[0]
    record["rows"] += 1
    names = ("tokens", record["partition"])
    edit_records(lambda r: (r["output"], r["partition"]) == names and r.update(rows=record["rows"]))


EDITS: dict[str, tuple[Callable[[Any], object], str]] = {
    "a partition dropped with its records": (drop_partition, "is not in the manifest"),
    "a partition dropped": (lambda value: value["partitions"].pop(1), "which is not among its partitions"),
    "a partition doubled": (lambda value: value["partitions"].append(value["partitions"][0]), "2 times"),
    "a partition renamed": (lambda value: value["partitions"][0].update(name="another"), "no record of the partition"),
    "a partition's rows": (lambda value: value["partitions"][0].update(rows=1), "rows: "),
    "a partition's source": (lambda value: value["partitions"][0].update(source="elsewhere"), "source: "),
    "partitions swapped": (lambda value: value["partitions"].reverse(), "not in the order of the partitions"),
    "a record dropped": (lambda value: records(value).pop(1), "tokens: has no record of the partition"),
    "a record doubled": (lambda value: records(value).append(records(value)[0]), "tokens: has 2 records"),
    "a record of another partition": (
        lambda value: records(value)[0].update(partition=records(value)[1]["partition"]),
        "tokens: has 2 records",
    ),
    "records swapped": (lambda value: records(value).reverse(), "tokens: its records are not in the order"),
    "files of two partitions swapped": (
        lambda value: [
            record.update(path=path)
            for record, path in zip(records(value), [r["path"] for r in records(value)][::-1], strict=True)
        ],
        "names the file",
    ),
    "a layout that names another's files": (layout_of_another, "names the file packed/meta-tokens/"),
    "an output dropped": (lambda value: value["outputs"].pop("packed/plain"), "packed/plain: has commit records"),
    "tokens dropped": (
        lambda value: value["outputs"].pop("tokens"),
        "is made from tokens of its partition, which is not",
    ),
    "annotations dropped": (
        lambda value: value["outputs"].pop("annotations/url"),
        "is made from annotations/url of its",
    ),
    "an output of an unknown layout": (
        lambda value: value["outputs"].update({"packed/new": value["outputs"]["packed/plain"]}),
        "packed/new: the record of the partition",
    ),
    "a record's rows": (lambda value: records(value)[0].update(rows=1), "differs from the manifest"),
    "a record's bytes": (lambda value: records(value)[0].update(bytes=1), "its record states 1"),
    "a record's sha256": (lambda value: records(value)[0].update(sha256="0" * 64), "(sha256)"),
    "a record's fingerprint": (lambda value: records(value)[0].update(fingerprint="0" * 64), "its fingerprint is not"),
    "a record's counts": (lambda value: records(value)[0]["counts"].update(tokens=1), "differs from the manifest"),
    "a record's content": (lambda value: records(value)[0]["content"].clear(), "differs from the manifest"),
    "a layout dropped with its files": (
        lambda value: (value["outputs"].pop("packed/plain"), drop_records("packed/plain")),
        "packed/plain: is not listed, though the manifest's recipe has it",
    ),
    "the recipe's seed": (lambda value: value["recipe"]["pack"].update(seed=7), "its recipe differs from the one that"),
    "the recipe's template": (
        lambda value: value["recipe"]["layouts"]["prepend-url"].update(template="{url_host}"),
        "layouts.prepend-url.template: '{url_host}' -> '{url}'",
    ),
    "the recipe's tokenizer": (
        lambda value: value["recipe"]["tokenizer"].update(path="other.tiktoken"),
        "tokenizer.path: 'other.tiktoken' -> ",
    ),
    "the recipe's columns": (
        lambda value: value["recipe"]["input"].update(columns={"text": "body"}),
        "input.columns.text: 'body' -> None",
    ),
    "the recipe's annotators": (lambda value: value["recipe"].update(annotators=[]), "annotators: [] -> "),
    "a partition's identity": (
        lambda value: value["partitions"][0].update(identity="0" * 64),
        "has changed since it was processed",
    ),
    "rows of tokens and annotations": (rows_of_tokens, "rows, the partition has "),
    "a quarantined file invented": (
        lambda value: value["quarantine"].append({"source": PART, "stage": "input", "reason": "gone"}),
        "which are not the 1 of the manifest",
    ),
    "a quarantined partition invented": (
        lambda value: value["quarantine"].append(
            {"source": PART, "partition": value["partitions"][0]["name"], "stage": "pack", "reason": "gone"}
        ),
        "which has files",
    ),
    "a quarantined line invented": (
        lambda value: value["quarantine"].append({"source": PART, "line": 7, "stage": "tokenize", "reason": "gone"}),
        "which is in no commit record",
    ),
}


def test_an_edited_manifest_with_a_right_checksum_is_found(finished: Path) -> None:
    shutil.copytree("out", "kept")
    resolved = resolved_recipe()
    for name, (edit, message) in EDITS.items():
        edit_manifest(edit, is_noticed=False)
        found = [f"{finding.path}: {finding.message}" for finding in Verification(resolved).findings()]
        assert any(message in line for line in found), (name, found)
        assert not any(line.startswith(EDITED) for line in found), name
        shutil.rmtree("out")
        shutil.copytree("kept", "out")


REPORT_EDITS: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "documents": ("summary", lambda value: value["documents"].update(documents=9), "documents.documents: 200 -> 9"),
    "tokens of a layout": (
        "summary",
        lambda value: value["layouts"]["plain"]["tokens"].update(text=1),
        "layouts.plain.tokens.text: ",
    ),
    "a share": ("summary", lambda value: value["annotations"][0].update(known=0.5), "annotations: "),
    "quarantined": ("summary", lambda value: value.update(quarantined=7), "quarantined: 0 -> 7"),
    "left aside": ("summary", lambda value: value.update(left_aside=[{"kind": "x"}]), "left_aside: [] -> "),
    "a list": ("summary", lambda value: value.update(layouts=[]), "layouts: "),
}


def test_an_edited_report_is_found(finished: Path) -> None:
    resolved = resolved_recipe()
    for name, (file, edit, message) in REPORT_EDITS.items():
        path = Path("out/report", f"{file}.json")
        kept = path.read_text()
        for is_noticed, expected in ((True, "its checksum is wrong: "), (False, message)):
            edit_report(path, edit, is_noticed=is_noticed)
            found = list(report_findings(resolved.store, manifest()))
            assert [finding.path for finding in found] == [f"report/{file}.json"], name
            assert expected in found[0].message, (name, found)
            path.write_text(kept)
    Path("out/report/summary.json").unlink()
    Path("out/report/run.json").write_text("[" * 100_000)
    assert [line.split(". ")[0] for line in findings()] == [
        "report/summary.json: is missing",
        "report/run.json: its checksum is wrong: it was edited or damaged, or an older version wrote it",
    ]
    assert run().code == 0
    assert verify().code == 0


def test_files_that_nothing_reads_are_noted(finished: Path) -> None:
    Path("out/tokens/.part.0123456789ab.arrow.tmp").write_bytes(b"begun")
    Path("out/tokens/more.arrow").write_bytes(b"")
    Path("out/records/tokens/more.json").write_text("{}")
    Path("out/packed/unknown").mkdir()
    called = verify()
    assert (called.code, called.err) == (0, "")
    names = "packed/unknown, records/tokens/more.json, tokens/.part.0123456789ab.arrow.tmp, ..."
    assert called.out.splitlines()[0] == f"4 files or directories that no reader opens: {names}"


def test_a_sound_output_of_an_older_version_is_sound_before_and_after_a_run_moves_its_records(finished: Path) -> None:
    num_records = as_an_older_version()
    sound = verify()
    assert (sound.code, sound.err, len(sound.out.splitlines())) == (0, "", 1)
    assert len([path for path in Path("out/records").rglob("*.json") if path.name[0] != "."]) == num_records
    moved, again = run(), run()
    line = f"commit records of an earlier version that are now in one table: {num_records:,}. Earlier versions cannot "
    assert moved.out.splitlines()[0] == f"{line}read this output any more"
    assert (moved.code, again.code, "earlier version" in again.out) == (0, 0, False)
    assert (verify().code, verify().out) == (0, sound.out)


def test_a_key_that_older_summaries_have_is_missed(finished: Path) -> None:
    as_an_older_version()
    edit_report(Path("out/report/summary.json"), lambda value: value.pop("left_aside"), is_noticed=False)
    assert [line.split(" -> ")[0] for line in findings()] == [
        "report/summary.json: differs from the manifest and its files: left_aside: []"
    ]


def test_a_stage_that_has_not_been_run_is_noted(project: Path) -> None:
    assert colophon("annotate", "recipe.toml", "--executor", "inline").code == 0
    called = verify("--deep")
    assert (called.code, called.err) == (0, "")
    assert [line.split(". ")[0] for line in called.out.splitlines()[:2]] == [
        f"nothing of the stage {stage} is in the manifest" for stage in ("tokenize", "pack")
    ]


@pytest.mark.parametrize(
    "edit",
    [
        lambda value: value["recipe"]["pack"].update(seed=7),
        lambda value: value.update(colophon_version="9"),
        lambda value: value["outputs"]["tokens"]["settings"].clear(),
        lambda value: None,
    ],
)
def test_any_other_edit_is_found_by_the_checksum(finished: Path, edit: Callable[[Any], object]) -> None:
    edit_manifest(edit)
    called = verify()
    assert called.code in (1, 2)
    assert called.err.startswith(EDITED)


RECORD_EDITS: dict[str, Callable[[Any], object]] = {
    "rows": lambda record: record.update(rows=1),
    "sha256": lambda record: record.update(sha256="0" * 64),
    "fingerprint": lambda record: record.update(fingerprint="0" * 64),
    "counts": lambda record: record["counts"].clear(),
    "content": lambda record: record["content"].update(text="0" * 64),
    "path": lambda record: record.update(path="../x"),
}


def test_edited_records_are_each_named(finished: Path) -> None:
    names = [record.partition for record in manifest().outputs["tokens"].records]
    assert len(names) >= len(RECORD_EDITS)
    edits = dict(zip(names, RECORD_EDITS.values(), strict=False))
    edit_records(lambda r: r["output"] == "tokens" and r["partition"] in edits and edits[r["partition"]](r))
    found = findings()
    edited = {f"tokens/{name}.arrow" for name in names[: len(RECORD_EDITS)]}
    of_records = [line for line in found if "its commit record" in line or "the record of tokens of" in line]
    assert {line.split(": ")[0] for line in of_records} == edited


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing. `colophon run` writes it"),
        ("{", "damaged: "),
        ("{}", "differs from the settings in the manifest: tokenizer: "),
    ],
)
def test_settings_that_are_missing_damaged_or_others_are_named(finished: Path, text: str | None, message: str) -> None:
    path = Path("out", settings_path("tokens"))
    path.unlink()
    if text is not None:
        path.write_text(text)
    (line,) = findings()
    assert line.startswith(f"records/tokens/.settings.json: {message}")
    if text != "{}":
        assert run().code == 0
        assert verify().code == 0


@pytest.fixture
def with_quarantine(project: Path) -> Path:
    """A finished project in which a file, a partition and two lines are quarantined."""
    write_json_lines(Path("data/lines.jsonl"), [{"text": "one"}, {"txt": "bad"}, {"text": "two"}, []])
    Path("data/broken.parquet").write_bytes(b"PAR1 and no more")
    damaged = Path("data/part-9.parquet")
    write_documents(damaged, range(40))
    data = bytearray(damaged.read_bytes())
    data[pq.read_metadata(damaged).row_group(0).column(0).dictionary_page_offset + 30] ^= 0x55
    damaged.write_bytes(bytes(data))
    path = Path("recipe.toml")
    path.write_text(path.read_text().replace('["data/*.parquet"]', '["data/*.parquet", "data/*.jsonl"]'))
    assert run().code == 3
    assert len(manifest().quarantine) >= 3
    return project


def test_a_run_with_quarantine_is_sound_until_the_quarantine_is_edited(with_quarantine: Path) -> None:
    assert verify("--inputs").code == 0
    quarantine, original = Path("out/quarantine.jsonl"), Path("out/quarantine.jsonl").read_bytes()
    quarantine.write_bytes(b"")
    assert [line.split(" has 0 entries")[0] for line in findings()] == ["quarantine.jsonl:"]
    quarantine.write_bytes(original[:-20])
    assert [line.split(" damaged: ")[0] for line in findings()] == ["quarantine.jsonl: line 4:"]
    quarantine.unlink()
    edit_manifest(lambda value: value["quarantine"].clear(), is_noticed=False)
    found = findings()
    assert any(line.startswith("data/broken.parquet: cannot be read, and is not in the manifest's") for line in found)
    assert any(line.startswith("data/part-9.parquet: its partition ") for line in found)
    assert any("its quarantine lacks line 2 of data/lines.jsonl" in line for line in found)


def test_a_different_spelling_of_the_paths_is_no_finding(with_quarantine: Path) -> None:
    spelled = ["./data/lines.jsonl", str(Path("data").absolute() / "*.parquet")]
    called = verify("--inputs", "--set", f"input.paths={spelled}")
    assert (called.code, called.err) == (0, "")


def test_files_that_can_be_read_again_are_named(with_quarantine: Path) -> None:
    write_documents(Path("data/broken.parquet"), range(9))
    assert findings() == [
        "data/broken.parquet: was quarantined, and can be read now. `colophon run` processes it",
    ]


def edit_in_place(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes of a file and restore its size and times."""
    before = path.stat()
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_input_that_changed_appeared_or_vanished_is_named(finished: Path) -> None:
    write_documents(Path(PART), range(70))
    write_documents(Path("data/part-3.parquet"), range(5))
    Path("data/part-0.parquet").unlink()
    found = dict(line.split(": ", 1) for line in findings())
    assert found.keys() == {"data/part-0.parquet", PART, "data/part-3.parquet"}
    assert found["data/part-0.parquet"].endswith("is no longer in the input. `colophon run` drops it")
    assert found[PART].startswith("has changed since it was processed (size, time of change or footer). ")
    assert found["data/part-3.parquet"].endswith("is not in the manifest. `colophon run` processes it")
    assert run().code == 0
    assert verify("--inputs").code == 0


def test_a_run_is_verified_without_its_input(finished: Path) -> None:
    Path("data").rename("moved")
    called = verify()
    assert called.code == 0
    assert called.out.startswith("the input was not compared: recipe.toml: input.paths: ")
    assert verify("--inputs").code == 2


def test_content_edited_with_size_time_and_footer_restored_is_found_by_reading_it(project: Path) -> None:
    write_json_lines(Path("data/lines.jsonl"), [{"text": "number 1", "url": "u"}, {"text": "b", "url": "v"}])
    table = pq.read_table("data/part-0.parquet", columns=["text", "url"]).slice(0, 3)
    table = table.set_column(0, "text", [["a", "number 1", "z"]])
    pq.write_table(table, "data/plain.parquet", write_statistics=False, use_dictionary=False, compression="none")
    settings = ["--set", 'input.paths=["data/plain.parquet", "data/lines.jsonl"]', "--set", "annotators={url={}}"]
    settings += ["--set", "layouts={plain={position='plain'}}", "--set", "train={}"]
    assert run(*settings).code == 0
    assert verify("--inputs", *settings).code == 0
    for path in ("data/plain.parquet", "data/lines.jsonl"):
        edit_in_place(Path(path), b"number 1", b"number 2")
    assert verify(*settings).code == 0  # a plan trusts size, time of change and footer
    found = findings("--inputs", *settings)
    assert sorted(line.split(": ")[0] for line in found) == ["data/lines.jsonl", "data/plain.parquet"]
    assert all("the column 'text' is not the one that tokens were made from" in line for line in found)
    for path in ("data/plain.parquet", "data/lines.jsonl"):
        Path(path).touch()
    assert run(*settings).code == 0
    assert verify("--inputs", *settings).code == 0


def test_a_model_edited_in_place_is_named(project: Path, quality_model: Path) -> None:
    model = Path("quality.bin")
    model.write_bytes(quality_model.read_bytes())
    annotator = "{ type = 'fasttext', model = 'quality.bin', score = { probability_of = 'high' } }"
    settings = ["--set", f"annotators.quality={annotator}"]
    assert run(*settings).code == 0
    resolved = resolved_recipe(*settings[1::2])
    assert list(Verification(resolved).findings()) == []
    edit_in_place(model, model.read_bytes()[-8:], b"edited\0\0")
    (finding,) = Verification(resolved).findings()  # with the sha256 that this machine remembers
    assert (Path(finding.path).name, finding.message[:19]) == ("quality.bin", "was edited in place")
    called = verify(*settings)  # the time of change (ctime) cannot be restored
    assert (called.code, "model_sha256" in called.err) == (2, True)
