"""A small run for pictures: pages of invented sites, whose sentences are put together from the lists below."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.pipeline.project import colophon

NUM_DOCUMENTS = 1_200
_SITES = {
    "Science": ("skywatch.example.org", "tidepool.example.edu", "field-notes.example.net"),
    "Food": ("bread-and-salt.example.com", "slow-kitchen.example.org"),
    "Software": ("docs.packline.example.io", "quietcode.example.dev"),
    "Gardens": ("north-garden.example.net", "allotment.example.org"),
    "Travel": ("night-trains.example.eu", "harbours.example.com"),
}
_WORDS = {
    "Science": (
        ("the comet", "a tide gauge", "the moss", "a weather balloon", "this mineral", "the heron"),
        ("was measured", "was drawn by hand", "was seen again", "was counted", "lost half its weight"),
        ("before sunrise", "at three stations", "in the second week of March", "under a small lens", "after the storm"),
    ),
    "Food": (
        ("the dough", "a pan of lentils", "the broth", "a plum cake", "the sourdough starter", "the salad"),
        ("rests", "is stirred slowly", "cools on a rack", "wants more salt", "is folded twice"),
        ("for forty minutes", "over a low flame", "until the edges are brown", "with a wooden spoon", "overnight"),
    ),
    "Software": (
        ("the parser", "a worker", "the cache", "each shard", "the old script", "this release"),
        ("reads a batch", "is restarted", "keeps its order", "writes one record", "fails with a clear line"),
        ("for every partition", "without a lock", "in bounded memory", "when the disk is full", "after a crash"),
    ),
    "Gardens": (
        ("the pear tree", "a row of beans", "the compost", "this rose", "the pond", "a cold frame"),
        ("is pruned", "is watered", "flowers late", "shelters hedgehogs", "is left alone"),
        ("in a dry April", "behind the shed", "after the last frost", "twice a week", "until the leaves fall"),
    ),
    "Travel": (
        ("the night train", "a small ferry", "the harbour office", "the mountain bus", "this footpath", "the inn"),
        ("leaves", "arrives late", "crosses the border", "serves coffee", "is closed"),
        ("from platform four", "in thick fog", "with two conductors", "on public holidays", "before the tunnel"),
    ),
}
_OPENINGS = ("Today", "As a rule,", "In our notes", "Every year", "According to the log", "Once more")
RECIPE = """
[input]
paths = ["data/*.parquet"]
[output]
path = "out/example"
[annotators.topic]
type = "columns"
columns = { topic = {} }
[annotators.quality]
type = "columns"
columns = { quality = { type = "number" } }
[annotators.crawl]
[annotators.url]
[tokenizer]
path = "models/example.tiktoken"
[pack]
sequence_length = 192
[layouts]
plain = { position = "plain" }
prepend-url = { position = "prepend", template = "{url}", dropout = 0.0 }
append-topic = { position = "append", template = "{topic}" }
meta-tokens = { position = "meta_tokens", num_meta_tokens = 5 }
"""


def write_example_run() -> Path:
    """Write input, tokenizer and recipe into the working directory and run all stages; the path of the recipe."""
    source = random.Random(0)
    Path("data").mkdir()
    rows = [_document(number, source) for number in range(NUM_DOCUMENTS)]
    pq.write_table(pa.Table.from_pylist(rows), "data/pages.parquet")
    Path("recipe.toml").write_text(RECIPE)
    for command in (
        (
            "train-tokenizer",
            "--input",
            "data/*.parquet",
            "--vocabulary-size",
            "2000",
            "--output",
            "models/example.tiktoken",
        ),
        ("run", "recipe.toml", "--executor", "inline"),
    ):
        called = colophon(*command)
        assert called.code == 0, called.err
    return Path("recipe.toml")


def _document(number: int, source: random.Random) -> dict[str, object]:
    (topic,) = source.choices(list(_SITES), weights=(5, 3, 6, 2, 3))
    site = source.choice(_SITES[topic])
    quality = min(max(source.gauss({"Science": 0.75, "Software": 0.6}.get(topic, 0.45), 0.16), 0.0), 1.0)
    sentences = [_sentence(topic, source) for _ in range(source.randint(3, 6 + int(20 * quality)))]
    page = f"{source.choice(_WORDS[topic][0])} {source.choice(_WORDS[topic][1])}".replace(" ", "-")
    return {
        "text": " ".join(sentences),
        "id": f"<urn:example:{number:05}>",
        "url": f"https://{site}/{source.randint(2013, 2024)}/{page}",
        "dump": f"CC-MAIN-20{source.randint(13, 24)}-{source.randint(5, 50):02}",
        "topic": topic,
        "quality": round(quality, 4),
    }


def _sentence(topic: str, source: random.Random) -> str:
    subject, verb, place = map(source.choice, _WORDS[topic])
    opening = source.choice(_OPENINGS) if source.random() < 0.4 else ""
    sentence = f"{opening} {subject} {verb} {place}".strip()
    return f"{sentence[0].upper()}{sentence[1:]}."
