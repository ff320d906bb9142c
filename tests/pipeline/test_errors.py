"""The text of errors: no secrets, one line."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer as HuggingFaceTokenizer

from colophon.pipeline.errors import one_line
from colophon.pipeline.executors.worker import attempt
from colophon.pipeline.stages.tasks import Task, TaskResult
from colophon.shards.common.errors import ColophonError, panics_as_errors, short_reason
from colophon.shards.common.url_secrets import has_secret, secret_in, without_secrets
from tests.pipeline.executors.fake_pool import task


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://user:pa55@host/x.parquet: gone", "https://***@host/x.parquet: gone"),
        ("ftp://user:p@ss@host/x", "ftp://***@host/x"),
        ("s3://AKIA:se/cr+et@bucket/x.jsonl: no", "s3://***@bucket/x.jsonl: no"),
        (
            "503 for url 'https://cdn.example.org/a.bin?X-Amz-Signature=abc&Expires=1'",
            "503 for url 'https://cdn.example.org/a.bin?***'",
        ),
        ("hf://datasets/a/b@main/x.jsonl", "hf://datasets/a/b@main/x.jsonl"),
        ("s3://bucket/part-?.jsonl: nothing", "s3://bucket/part-?.jsonl: nothing"),
        ("s3://bucket/a@b:c", "s3://bucket/a@b:c"),
        ("http://127.0.0.1:8080/a@b", "http://127.0.0.1:8080/a@b"),
        ("mail to a@b.org, see https://example.org/", "mail to a@b.org, see https://example.org/"),
    ],
)
def test_passwords_and_signatures_are_masked(text: str, masked: str) -> None:
    assert without_secrets(text) == masked


def test_one_line_is_the_first_line_that_is_not_blank() -> None:
    assert one_line(ValueError("\n  first of https://a:b@c/ \nsecond")) == "first of https://***@c/"
    assert one_line(KeyError()) == "KeyError"


SECRETS = [
    *("https://user:{}@h/x", "https://{}@h/x", "https://user:p%40{}@h/x", "https://us er:{}@h/x"),
    *("https://user:a/{}@h/x", "https://user%3A{}%40h/x", "https:///user:{}@h/x", "https:/user:{}@h/x"),
    *("https:user:{}@h", "//user:{}@h/x", "https:\\\\user:{}@h/x", "HTTPS://user:{}@h/x", "ftp://user:p@{}@h/x"),
    *("sftp://user:{}@h/x", "hdfs://{}@h/x", "s3://AKIA:{}@b/x", "s3://AKIA:se/{}+et@b/x", "s3://AKIA:12/{}@b/x"),
    *("simplecache::https://user:{}@h/x", "https://h/x?sig={}", "https://h/x?%73ig={}", "https://h/x?a=1;sig={}"),
    *("https://h/x?download=1&jwt={}", "https://h/x?{}", "https://h/x?{}==", "https://h/x?X-Amz-Signature={}"),
    *("https://h/p;token={}/x", "https://h/x?private_token={}", "https://h/x?code={}", "gs://b/x?t={}"),
    *("https://h/x?Policy={}&Key-Pair-Id=1", "https://h/x#sig={}", "webhdfs://h/x?delegation={}"),
    *("az://c@acct/x?sv=1&sig={}", 'see https://user:{}@h/"', '["https://user:{}@h/x"', '["https://us er:{}@h/x"'),
]


@pytest.mark.parametrize("spelled", SECRETS)
def test_urls_with_secrets_are_recognized_and_masked(spelled: str) -> None:
    url = spelled.format("pa55")
    problem = secret_in(url)
    assert problem is not None
    assert "pa55" not in problem
    assert has_secret(url)
    assert "pa55" not in without_secrets(f"no file '{url}'; {url}: gone")
    assert "pa55" not in str(ColophonError(f"{url}: gone"))
    assert "pa55" not in one_line(OSError(f"{url}\nsecond"))
    assert "pa55" not in short_reason(OSError(url))


@pytest.mark.parametrize(
    ("url", "key"), [("https://h/x?sig=1", "'sig'"), ("https://h/x?%73ig=1", "'sig'"), ("s3://b/x?a=1", "'a'")]
)
def test_a_query_key_is_named(url: str, key: str) -> None:
    assert str(secret_in(url)).startswith(f"it has the query key {key}; only alt, dl, download, ")


@pytest.mark.parametrize(
    "url",
    [
        *("hf://datasets/a/b@main/x.jsonl", "hf://datasets/a/b@refs%2Fconvert%2Fparquet/x.jsonl"),
        *("https://host:8080/a@b.parquet?download=true", "https://h/x?alt=media&generation=12", "http://[::1]:80/x@y"),
        *("s3://bucket/part-?.jsonl", "s3://b/part-?/day=1/x", "s3://b/k?versionId=a.b", "s3://bucket/a@b:c"),
        *("abfs://container@account.dfs.core.windows.net/x", "s3://arn:aws:s3:us-west-2:123:accesspoint/a/b"),
        *("file:///a@b/c", "file:/a@b", "/data/a@b:c", "a:b@c.parquet", "memory:///a@b", "ray://head:10001"),
        *("{url}: https://{host}/?q={url}", "Source: https://example.org/#a mail x@y", "(?i:https?://\\S+@\\S+)"),
    ],
)
def test_urls_without_secrets_are_recognized(url: str) -> None:
    assert not has_secret(url)


@pytest.mark.parametrize("text", ["a://", "https:", "https: a", "//a:", "https://a;b", "a:b@", "s3://a?b", "ftp://a "])
def test_masking_takes_linear_time(text: str) -> None:
    """A pattern that backtracks would take minutes."""
    assert without_secrets(text * 8_000)


class Panicking:
    """A worker whose library in Rust panics at a document."""

    def work(self, task: Task) -> TaskResult:
        vocabulary, merges = {"a": 0, "b": 1, "ab": 2}, [["a", "b"]]
        model = {"type": "BPE", "vocab": vocabulary, "merges": merges, "continuing_subword_prefix": "too long"}
        HuggingFaceTokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))
        raise AssertionError("no panic")


def test_a_panic_of_a_library_is_the_outcome_of_its_partition() -> None:
    outcome = attempt(Panicking(), task("a"))
    assert outcome.result is None
    assert outcome.error is not None
    assert outcome.error.startswith("a library failed: ")


def test_what_is_no_panic_ends_the_command() -> None:
    with pytest.raises(KeyboardInterrupt), panics_as_errors():
        raise KeyboardInterrupt
