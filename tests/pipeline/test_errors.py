"""The text of errors: no secrets, one line."""

from __future__ import annotations

import pytest

from colophon.pipeline.errors import has_secret, one_line, without_secrets


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


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pa55@host/x.parquet",
        "ftp://user:p@ss@host/x",
        "s3://AKIA:se/cr+et@bucket/x.jsonl",
        "https://host/x.parquet?a=b&X-Amz-Signature=abc",
        "https://host/x.parquet?sv=1&sig=abc",
    ],
)
def test_urls_with_secrets_are_recognized(url: str) -> None:
    assert has_secret(url)


@pytest.mark.parametrize(
    "url",
    [
        "hf://datasets/a/b@main/x.jsonl",
        "https://host:8080/a@b.parquet?download=true",
        "hdfs://user@host/x",
        "s3://bucket/part-?.jsonl",
        "a:b@c.parquet",
    ],
)
def test_urls_without_secrets_are_recognized(url: str) -> None:
    assert not has_secret(url)
