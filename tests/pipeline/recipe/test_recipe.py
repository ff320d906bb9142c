"""Every error of a recipe is one line that names the file, the key and the choices; nothing is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from colophon.annotators.registry import offers
from colophon.pipeline.errors import UsageError
from colophon.pipeline.recipe.loading import load_recipe, parse_settings, shipped_recipes
from tests.pipeline.project import LAYOUTS, RECIPE, colophon, resolved_recipe, run, snapshot

COLUMNS = (
    "crawl_slice, crawl_year, quality_coarse, quality_fine, url, url_domain, url_host, url_prefix, "
    "url_registered_domain, url_suffix"
)
URL = 'template = "{url}"'
ANNOTATORS = "ANNOTATORS"  # in a message: the names of all annotators, those that other tests define included
FASTTEXT = '[annotators.topic]\ntype = "fasttext"\n'

WRONG: list[tuple[str, str, str]] = [
    # a part of the recipe, its replacement, the error after the file's name
    (
        "[input]",
        "typo = 1\n[input]",
        "typo: unknown key; available: annotators, input, inputs, layouts, output, pack, plugins, ray, tokenizer, ",
    ),
    (
        "partition_bytes",
        "partition_byte",
        "input.partition_byte: unknown key; available: columns, format, max_document_bytes, name, partition_bytes, ",
    ),
    (
        "[annotators.url]",
        "[annotators.url]\nprivate = true",
        "annotators.url.private: unknown key; available: private_suffixes",
    ),
    (
        'position = "plain"',
        'position = "plain"\ntemplate = "{url}"',
        "layouts.plain.template: unknown key; available: position, role_weights",
    ),
    (
        URL,
        f"{URL}\ndrop_out = 0.1",
        "layouts.prepend-url.drop_out: unknown key; available: dropout, max_metadata_tokens, position, role_weights, "
        "segments, template, when_dropped",
    ),
    (
        'position = "meta_tokens"',
        'position = "meta_tokens"\nnum_tokens = 2',
        "layouts.meta-tokens.num_tokens: unknown key; available: dropout, num_meta_tokens, position, role_weights, "
        "segments, when_dropped",
    ),
    (
        "steps = 1",
        "steps = 1\noptimizer = { beta = 3 }",
        "train.tiny.optimizer.beta: unknown key; available: beta1, beta2, eps, "
        "independent_weight_decay, max_grad_norm, type, weight_decay",
    ),
    (
        "steps = 1",
        'steps = 1\nschedule = { type = "wsd", warmup = 3 }',
        "train.tiny.schedule.warmup: unknown key; available: decay, decay_fraction, min_lr_ratio, type, warmup_steps",
    ),
    (
        "[annotators.url]",
        "[annotators.ulr]",
        f"annotators.ulr: unknown annotator 'ulr'; available: {ANNOTATORS}. Did you mean 'url'?",
    ),
    (
        "[annotators.url]",
        '[annotators.url]\ntype = ["url"]',
        f"annotators.url: unknown annotator ['url']; available: {ANNOTATORS}",
    ),
    (
        'position = "prepend"',
        'position = "before"',
        "layouts.prepend-url: unknown position 'before'; available: append, meta_tokens, plain, prepend",
    ),
    (
        'position = "prepend"',
        "",
        "layouts.prepend-url: position is required; available: append, meta_tokens, plain, prepend",
    ),
    (
        "steps = 1",
        'steps = 1\nschedule = { type = "linear" }',
        "train.tiny.schedule: unknown type 'linear'; available: cosine, wsd",
    ),
    (
        'position = "append"',
        'position = "append"\nsegments = "first"',
        "layouts.append-quality.segments: must be 'every' or 'last', got 'first'",
    ),
    (URL, "", "layouts.prepend-url.template: is required"),
    ('path = "out"', "", "output.path: is required"),
    ('path = "out"', 'path = "small.tiktoken"', "output.path: small.tiktoken is a file; a run's output is a directory"),
    ('path = "out"', 'path = "recipe.toml/x/y"', "output.path: recipe.toml is a file; a run's output is a directory"),
    ("[output]\n", "[outputs]\n", "output: is required"),
    (URL, 'template = "{topic}"', f"layouts.prepend-url.template: no annotator writes 'topic'; available: {COLUMNS}"),
    (URL, 'template = "{url"', "layouts.prepend-url.template: expected '}' before end of string, got '{url'"),
    (URL, f"{URL}\ndropout = 1.5", "layouts.prepend-url.dropout: must be less than or equal to 1, got 1.5"),
    (
        "[annotators.crawl]",
        '[annotators.crawl]\n[annotators.quality]\ntype = "edu_score"',
        "annotators quality and edu_score both write the column 'quality_coarse'. Give one of them a different name",
    ),
    (
        "sequence_length = 64",
        "sequence_length = 27",
        "pack.sequence_length: must be at least 28 for layouts.prepend-url, whose bos, wrapper, longest metadata, "
        "one text token and eos must fit; got 27. Set it to 28, or layouts.prepend-url.max_metadata_tokens to at most "
        "23",
    ),
    (
        'layout = "prepend-url"',
        'layout = "prepend"',
        "train.tiny.layout: no layout 'prepend'; available: append-quality, meta-tokens, plain, prepend-url",
    ),
    (
        'model = "1m"',
        'model = "2m"',
        "train.tiny.model: unknown model preset '2m'; available: 1m, 10m, 124m, 350m, 1.5b",
    ),
    ("[input]", "[input", "not valid TOML: Expected ']' at the end of a table declaration (at line 2, column 7)"),
    ("[annotators.url]", "[annotators]\nurl = 3", "annotators.url must be a table"),
    ('path = "small.tiktoken"', 'path = "no.tiktoken"', "tokenizer: no tokenizer file no.tiktoken"),
    (
        'path = "small.tiktoken"\npattern = "gpt2"',
        'name = "gpt3"',
        "tokenizer: unknown tokenizer 'gpt3'; available: gpt2, cl100k_base, o200k_base, tekken (hf:ORGANIZATION/MODEL",
    ),
    (
        '[tokenizer]\npath = "small.tiktoken"\npattern = "gpt2"',
        "",
        "[tokenizer] is required to tokenize and pack",
    ),
    (
        "[annotators.url]",
        f'{FASTTEXT}model = "no.bin"\nscore = {{ argmax = true }}\n[annotators.url]',
        "/no.bin: no such file",
    ),
    (
        "[annotators.url]",
        f'{FASTTEXT}model = "small.tiktoken"\nscore = {{ argmax = true }}\n[annotators.url]',
        "/small.tiktoken: not a usable fastText model: its magic number is missing",
    ),
    (
        "[annotators.url]",
        f"{FASTTEXT}score = {{ argmax = true }}\n[annotators.url]",
        "annotators.topic.model: is required",
    ),
    ("partition_bytes", 'format = "xml"\npartition_bytes', "input.format: must be 'parquet', 'jsonl', 'csv', "),
    (
        "partition_bytes",
        'columns = { txt = "body" }\npartition_bytes',
        "input.columns.txt: unknown column; available: text, id, dump, url, date, file_path, language, ",
    ),
    (
        "partition_bytes",
        'columns = { text = "body" }\npartition_bytes',
        "no input file can be read; the first, data/part-0.parquet: no column 'body'; "
        "columns: text, id, dump, url, language, score",
    ),
    ('["data/*.parquet"]', '["none/*.parquet"]', "input.paths: none/*.parquet: no such file, or no data file in it"),
    ('["data/*.parquet"]', "[]", "input.paths: must have at least 1 item"),
    *(
        ("[layouts.plain]", f'[layouts."{name}"]', f"layouts: '{name}' becomes a directory name: use letters, digits")
        for name in ("a/b", "../plain", "", ".hidden", "a b")
    ),
    (
        "[annotators.url]",
        '[annotators."u/rl"]\ntype = "url"',
        "annotators: 'u/rl' becomes a directory name: use letters, digits",
    ),
    (
        "sequence_length = 64",
        f"sequence_length = {2**24 + 1}",
        "pack.sequence_length: must be less than or equal to 167",
    ),
    (
        "sequence_length = 64",
        "sequence_length = 1" + "0" * 20,
        "pack.sequence_length: a whole number of TOML has at most",
    ),
    ('path = "out"', 'path = "a\\u0000b"', "output.path: 'a\\x00b': a path has no null byte"),
    (
        "[layouts.plain]",
        '[layouts.Plain]\nposition = "plain"\n[layouts.plain]',
        "layouts: 'Plain' and 'plain' are one directory on a disk without case. Rename one",
    ),
    ("[layouts.plain]", f"[layouts.{'a' * 201}]", "layouts: a name becomes a directory name: at most 200 bytes"),
    (
        "[layouts.plain]",
        "".join(f'[layouts.l{i}]\nposition = "plain"\n' for i in range(1001)) + "[layouts.plain]",
        "layouts: 1,005 sections; at most 1,000 are read",
    ),
    (URL, f'template = "{"{url}" * 101}"', "template: a template has at most 100 fields, not 101"),
    (URL, f'template = "{"x" * 10_001}"', "template: has 10,001 characters; at most 10,000 are read"),
    ("[input]", f'["{"k" * 1001}"]\n[input]', "recipe: a key has more than 1000 characters"),
    ("[input]", f"# {'x' * (1 << 20)}\n[input]", "has more than 1,048,576 bytes"),
    ("[input]", f"x = {'[' * 5000}{']' * 5000}\n[input]", "not a recipe: tables or lists in it are nested too deeply"),
    ("[input]", f"{'a.' * 3000}b = 1\n[input]", "not a recipe: tables or lists in it are nested too deeply"),
    (
        "steps = 1",
        'steps = 1\ncompile = "cuda_graph"',
        "train.tiny.compile: must be 'layers', 'model' or 'cuda_graphs', or true or false, got 'cuda_graph'",
    ),
    ("steps = 1", f"steps = {'9' * 5000}", "not valid TOML: Exceeds the limit"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG, ids=[f"{i}: {case[2][:50]}" for i, case in enumerate(WRONG)])
def test_a_wrong_recipe_is_one_line_and_writes_nothing(project: Path, old: str, new: str, message: str) -> None:
    assert old in RECIPE
    Path("recipe.toml").write_text(RECIPE.replace(old, new, 1))
    before = snapshot()
    called = run()
    assert called.code == 2
    assert called.line.startswith("recipe.toml: ")
    assert message.replace(ANNOTATORS, ", ".join(sorted(offer.name for offer in offers()))) in called.line
    assert called.out == ""
    assert snapshot() == before


def test_a_recipe_that_is_not_utf8_or_missing_is_one_line(project: Path) -> None:
    Path("latin.toml").write_bytes(b"# \xfc\n")
    assert run(recipe="latin.toml").line.startswith("latin.toml: not UTF-8: the byte 0xfc in line 1. Convert it")
    Path("wide.toml").write_text(RECIPE, encoding="utf-16")
    assert run(recipe="wide.toml").line == "wide.toml: UTF-16, not UTF-8. Convert it: iconv -f UTF-16 -t UTF-8"
    Path("mark.toml").write_text(RECIPE, encoding="utf-8-sig")
    assert load_recipe("mark.toml") == load_recipe("recipe.toml")
    called = run(recipe="recipe")
    assert called.code == 2
    assert called.line == "no recipe file recipe; bundled recipes: " + ", ".join(sorted(shipped_recipes()))


def test_an_installed_command_fails_the_same_way(project: Path) -> None:
    Path("recipe.toml").write_text(RECIPE.replace("[pack]", "[pakc]"))
    done = subprocess.run(
        [sys.executable, "-m", "colophon", "run", "recipe.toml"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("colophon: recipe.toml: pakc: unknown key; available: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize("stage", ["annotate", "tokenize", "pack", "export", "inspect", "verify", "train"])
def test_every_command_that_takes_a_recipe_checks_it(project: Path, stage: str) -> None:
    Path("recipe.toml").write_text(RECIPE.replace("[pack]", "[pakc]"))
    more = ["--to", "exported"] if stage == "export" else []
    called = colophon(stage, "recipe.toml", *more)
    assert called.code == 2
    assert called.line.startswith("recipe.toml: pakc: unknown key; available: ")
    assert not Path("exported").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("pack", "--set pack: write key=value"),
        ("=3", "--set =3: write key=value"),
        ("pack.=3", "--set pack.=3: write key=value"),
        (".pack=3", "--set .pack=3: write key=value"),
        ("input.paths.x=3", "--set input.paths.x=3: paths is not a table"),
        ("nope.x=3", "recipe.toml: nope: unknown key; available: annotators, "),
        ("pack.nope=3", "recipe.toml: pack.nope: unknown key; available: method, seed, sequence_length"),
        ("pack.sequence_length=long", "recipe.toml: pack.sequence_length: must be a whole number, got "),
        ("pack=3", "recipe.toml: pack: must be a table, got 3; its keys: method, seed, sequence_length"),
        ("train=3", "recipe.toml: train: must be a table, got 3"),
        ("input.paths=3", "recipe.toml: input.paths: must be a list, got 3"),
        ("train.tiny.warmup_steps=3", "recipe.toml: train.tiny.warmup_steps: unknown key; it belongs in optimizer or "),
        ("train.tiny.row_weights={}", "recipe.toml: train.tiny.row_weights: unknown key; it belongs in sources; avail"),
        ("output.path=", "recipe.toml: output.path: must have at least 1 character"),
    ],
)
def test_a_wrong_override_is_one_line_and_writes_nothing(project: Path, setting: str, message: str) -> None:
    before = snapshot()
    called = run("--set", setting)
    assert called.code == 2
    assert called.line.startswith(message)
    assert snapshot() == before


def test_overrides_take_numbers_words_strings_lists_and_tables(project: Path) -> None:
    recipe = resolved_recipe(
        "pack.sequence_length=128",
        "pack.method=best_fit",
        'output.path="else where"',
        'input.paths=["data/part-0.parquet"]',
        "annotators.url.private_suffixes=true",
        "layouts.prepend-url.dropout=0.5",
        "layouts.new={ position = 'plain' }",
        "layouts.newer.position=plain",
        "ray.partition_timeout_seconds=1e3",
    ).recipe
    assert (recipe.pack.sequence_length, recipe.pack.method) == (128, "best_fit")
    assert recipe.output.path == "else where"
    assert recipe.input.paths == ["data/part-0.parquet"]
    assert recipe.annotators["url"].model_dump() == {"private_suffixes": True}
    assert recipe.layouts["prepend-url"].model_dump()["dropout"] == 0.5
    assert set(recipe.layouts) == {*LAYOUTS, "new", "newer"}
    assert recipe.ray.partition_timeout_seconds == 1000.0
    assert resolved_recipe("input.paths=data/part-0.parquet").recipe.input.paths == ["data/part-0.parquet"]


def test_an_override_can_contain_equals_signs(project: Path) -> None:
    layout = resolved_recipe('layouts.prepend-url.template="a={url}"').recipe.layouts["prepend-url"]
    assert layout.model_dump()["template"] == "a={url}"


def test_errors_of_other_options_name_the_option() -> None:
    assert parse_settings("--setting", ["dim=3", "a.b=c"]) == {"dim": 3, "a": {"b": "c"}}
    with pytest.raises(UsageError, match=re.escape("--setting dim: write key=value")):
        parse_settings("--setting", ["dim"])


def test_the_vocabulary_has_enough_meta_tokens_for_every_layout(project: Path) -> None:
    assert load_recipe("recipe.toml").num_meta_tokens == 5
    assert load_recipe("recipe.toml", overrides=["layouts.meta-tokens.num_meta_tokens=2"]).num_meta_tokens == 5
    more = load_recipe("recipe.toml", overrides=["layouts.meta-tokens.num_meta_tokens=9"])
    assert more.num_meta_tokens == 9
