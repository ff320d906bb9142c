from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from colophon.annotators.base import annotator_types
from colophon.shards.common.arrays import NumPyArray
from colophon.shards.layouts import Layout, render
from colophon.shards.schema import TokenizerInfo
from colophon.shards.tokenizer.tokenizer import Tokenizer, TokenizerConfig, load_tokenizer
from colophon.trainer.attention import attend
from colophon.trainer.attention_maps.bins import compare_bins, distance_matrix
from colophon.trainer.attention_maps.heat_maps import draw_attention, draw_bins
from colophon.trainer.attention_maps.masses import (
    attention_masses,
    attention_weights,
    meta_token_attention,
    watch_attention,
)
from colophon.trainer.attention_maps.parts import URL_PARTS, labelled_rows, parts_of_tokens, required_columns
from colophon.trainer.attention_maps.report import AttentionReport, PartReport
from colophon.trainer.checkpoint import TrainingState
from colophon.trainer.config import TrainConfig
from colophon.trainer.errors import TrainerError
from colophon.trainer.evaluation.bootstrap import Estimate
from colophon.trainer.inference.contexts import TrainedLayout
from colophon.trainer.inference.trained_model import TrainedModel
from colophon.trainer.model import Decoder, rotation_at
from colophon.trainer.plots.figures import save_figure
from tests.pipeline.project import write_tokenizer
from tests.trainer.runs import TINY_MODEL

SHARED = Path(__file__).parents[3].parent / "shared"
URLS = [
    "https://www.example.org/a/b?q=1#f",
    "http://example.org",
    "https://bücher.münchen.example:8443/größe/über?q=日本#τέλος",
    "https://東京.example.jp/🙂🙂",
    "ftp://user:pass@[2001:db8::1]:21/x",
    "HTTPS://EXAMPLE.org?only=query",
    "https://example.org//the//the",
    "  https://spaces.example.org/around \n",
    "git+ssh://the.in/",
    "https://a.b/" + "the/" * 60,
]
WITHOUT_PARTS = ["data:text/plain,hello", "mailto:a@b.example", "example.org/the", "//host/x", "file:///etc/hosts"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "small.tiktoken"
    write_tokenizer(path)
    return load_tokenizer(TokenizerConfig(path=str(path), pattern="gpt2"), num_meta_tokens=3)


def trained_model(tokenizer: Tokenizer, **changes: Any) -> TrainedModel:
    """A model whose weights are drawn so wide that its attention is far from even."""
    config = TrainConfig.model_validate(
        {"layout": "x", "model": {**TINY_MODEL, "init_std": 0.3, **changes}, "steps": 1, "device": "cpu"}
    )
    names = ("name", "sha256", "num_base_ids", "num_ids", "special")
    info = TokenizerInfo(**{name: getattr(tokenizer, name) for name in names})
    decoder = Decoder(config.model, tokenizer=info)
    decoder.initialise(seed=1)
    return TrainedModel(
        name="drawn",
        model=decoder.requires_grad_(False).eval(),
        config=config,
        tokenizer=info,
        state=TrainingState(step=1),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def layout_for(tokenizer: Tokenizer, **fields: Any) -> TrainedLayout:
    layout: Layout = TypeAdapter(Layout).validate_python(fields)
    return TrainedLayout(name="x", layout=layout, sequence_length=512, special=tokenizer.special)


def url_columns(urls: list[str | None]) -> dict[str, pa.Array]:
    """The url annotator's columns."""
    annotator = annotator_types()["url"]().build("url")
    annotator.load()
    batch = annotator.annotate(pa.record_batch({"url": pa.array(urls, pa.string())}))
    return {name: batch.column(name) for name in batch.schema.names}


def brute_parts(tokenizer: Tokenizer, ids: list[int], parts: list[tuple[str, str]]) -> list[str]:
    """The part of each token's first byte, by the bytes of the tokens."""
    owner = [name for name, text in parts for _ in text.encode()]
    found, at = [], 0
    for token_id in ids:
        found.append(owner[at])
        at += len(tokenizer._backend.token_bytes(token_id))
    assert at <= len(owner)
    return found


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode_batch(pa.array([text]))[0].as_py()
    return ids


@pytest.mark.parametrize("url", URLS)
def test_parts_of_unusual_urls_are_those_of_the_tokens_first_bytes(tokenizer: Tokenizer, url: str) -> None:
    columns = url_columns([url])
    prefix, domain, suffix = (columns[name][0].as_py() for name in URL_PARTS)
    start = url.index(prefix)
    middle, end = start + len(prefix), start + len(prefix) + len(domain)
    pieces = list(zip(URL_PARTS, (url[:middle], url[middle:end], url[end:]), strict=True))
    rows = labelled_rows(
        layout_for(tokenizer, position="prepend", template="{url}"), columns, num_documents=1, tokenizer=tokenizer
    )
    ids = encode(tokenizer, url)[:128]
    assert rows.prefixes[0].tolist() == [tokenizer.special.bos, tokenizer.special.boc, *ids, tokenizer.special.eoc]
    names = [rows.part_names[part] for part in rows.parts[0]]
    assert names == ["bos", "wrapper", *brute_parts(tokenizer, ids, pieces), "wrapper"]
    assert len(ids) == 128 or suffix == "" or "url_suffix" in names


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=80, deadline=None)
def test_parts_of_any_text_are_those_of_the_tokens_first_bytes(
    tokenizer: Tokenizer, one: str, two: str, three: str
) -> None:
    spans = [(name, text) for name, text in (("a", one), ("b", two), ("c", three)) if text]
    ids = encode(tokenizer, one + two + three)
    if "\ufffd" not in one + two + three:  # a cut character also decodes to it
        expected = brute_parts(tokenizer, ids, spans)
        assert parts_of_tokens(np.array(ids), spans, tokenizer=tokenizer) == expected
        for cut in range(1, len(ids)):
            assert parts_of_tokens(np.array(ids[:cut]), spans, tokenizer=tokenizer) == expected[:cut]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not beside the checkout")
def test_parts_with_a_real_vocabulary() -> None:
    real = load_tokenizer(TokenizerConfig(path=str(SHARED / "data/vocab/gpt2.tiktoken"), pattern="gpt2"))
    spans = list(zip(URL_PARTS, ("https://", "www.reddit.com", "/r/science/comments/größe"), strict=True))
    ids = encode(real, "".join(text for _, text in spans))
    found = parts_of_tokens(np.array(ids), spans, tokenizer=real)
    assert found == brute_parts(real, ids, spans)
    assert found[0] == "url_prefix"  # `https`, then `://`
    assert found[:2] == ["url_prefix", "url_prefix"]


def test_ids_of_a_different_text_have_no_parts(tokenizer: Tokenizer) -> None:
    assert parts_of_tokens(np.array(encode(tokenizer, "other")), [("a", "the")], tokenizer=tokenizer) is None


def test_a_template_of_several_fields_and_documents_without_metadata(tokenizer: Tokenizer) -> None:
    urls = [URLS[0], None, *WITHOUT_PARTS[:2], None]
    columns = url_columns(urls)
    columns["topic"] = pa.array(["ä", None, None, "in", "über"])
    layout = layout_for(tokenizer, position="prepend", template="{topic} | {url}", max_metadata_tokens=100, dropout=1.0)
    assert required_columns(layout) == ["topic", "url", *URL_PARTS]
    rows = labelled_rows(layout, columns, num_documents=5, tokenizer=tokenizer)
    assert rows.part_names == ["bos", "wrapper", "topic", "template", *URL_PARTS, "url", "text"]
    assert rows.kept.tolist() == [0, 2, 3, 4]
    assert rows.excluded == {"without_metadata": 1, "changed_by_the_tokenizer": 0}
    rendered = render("{topic} | {url}", columns, num_rows=5)
    for number, row in zip(rows.kept, rows.prefixes, strict=True):
        assert row[2:-1].tolist() == encode(tokenizer, rendered[int(number)].as_py())
    whole = layout.metadata(columns, num_documents=5, encoder=tokenizer)
    for number, row in zip(rows.kept, rows.prefixes, strict=True):
        assert row.tolist() == layout.prefix(whole[number])  # as packing writes it, none dropped
    last = [rows.part_names[part] for part in rows.parts[3]]
    assert set(last[2:-1]) == {"topic", "template"}
    assert "url" in [rows.part_names[part] for part in rows.parts[1]]


def test_layouts_with_nothing_before_the_text_are_refused(tokenizer: Tokenizer) -> None:
    for settings_ in ({"position": "plain"}, {"position": "append", "template": "{url}"}):
        with pytest.raises(TrainerError, match="has nothing before the text to attend to"):
            required_columns(layout_for(tokenizer, **settings_))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_weights_sum_to_1_and_equal_those_of_the_model(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 7, 6, generator=generator, dtype=torch.float64)
    key, value = (torch.randn(2, kv_heads, 7, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    weights = attention_weights(query, key)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 7))
    for b, h, i, j in np.ndindex(2, 4, 7, 7):
        shared = h // (4 // kv_heads)
        scores = [float(query[b, h, i] @ key[b, shared, k]) / math.sqrt(6) for k in range(i + 1)]
        total = sum(map(math.exp, scores))
        expected = math.exp(scores[j]) / total if j <= i else 0.0
        assert float(weights[b, h, i, j]) == pytest.approx(expected, abs=1e-6)
    of_heads = value.repeat_interleave(4 // kv_heads, dim=1)
    torch.testing.assert_close(weights.double() @ of_heads, attend(query, key, value, mask=None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}, {"num_kv_heads": 4}])
def test_watching_changes_no_states_and_sees_every_layer(tokenizer: Tokenizer, changes: dict[str, Any]) -> None:
    trained = trained_model(tokenizer, **changes)
    input_ids = torch.arange(24).view(2, 12)
    seen: dict[int, torch.Tensor] = {}
    states = watch_attention(trained.model, input_ids, seen.__setitem__)
    torch.testing.assert_close(states, trained.hidden_states(input_ids))
    assert sorted(seen) == [0, 1]
    inputs: list[torch.Tensor] = []
    positions = torch.arange(12, dtype=torch.int32).expand(2, 12)
    trained.model.hidden_states(input_ids, positions, None, visit=inputs.append)
    first: Any = trained.model.layers[0]
    rotation = rotation_at(positions, head_size=16, base=trained.config.model.rope_base)
    normalised = first.input_layernorm(inputs[0])
    _, _, value = first.self_attn.project(normalised, rotation)
    value = value.repeat_interleave(4 // value.shape[1], dim=1)
    by_weights = first.self_attn.o_proj((seen[0] @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(by_weights, first.self_attn(normalised, rotation, None), rtol=1e-4, atol=1e-5)


def brute_masses(
    trained: TrainedModel, prefix: NumPyArray, parts: NumPyArray, text: NumPyArray, *, num_parts: int
) -> tuple[NumPyArray, NumPyArray]:
    """Masses [layers, heads, parts] and even shares [parts] of one document alone."""
    whole = torch.from_numpy(np.concatenate([prefix, text]))[None]
    of = [*parts.tolist(), *[num_parts - 1] * len(text)]
    mass = np.zeros((2, 4, num_parts))
    even = np.zeros(num_parts)

    def see(layer: int, weights: torch.Tensor) -> None:
        for head in range(4):
            for query in range(len(prefix), len(of)):
                for key in range(query + 1):
                    mass[layer, head, of[key]] += float(weights[0, head, query, key]) / len(text)

    watch_attention(trained.model, whole, see)
    for query in range(len(prefix), len(of)):
        for key in range(query + 1):
            even[of[key]] += 1 / (query + 1) / len(text)
    return mass, even


def test_masses_equal_those_of_each_document_alone(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "colophon.trainer.attention_maps.masses._PAIRS_AT_ONCE", 3 * 90**2
    )  # several batches of several rows
    trained = trained_model(tokenizer)
    layout = layout_for(tokenizer, position="prepend", template="{url}", max_metadata_tokens=60)
    rows = labelled_rows(layout, url_columns(list(URLS[:6])), num_documents=6, tokenizer=tokenizer)
    random = np.random.default_rng(0)
    texts = [random.integers(0, 256, length).astype(np.uint16) for length in (3, 20, 1, 9, 14, 5)]
    found = attention_masses(trained, rows, texts)
    np.testing.assert_allclose(found.mass.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.uniform.sum(-1), 1, rtol=1e-5)
    for number, (prefix, parts, text) in enumerate(zip(rows.prefixes, rows.parts, texts, strict=True)):
        mass, even = brute_masses(trained, prefix, parts, text, num_parts=len(rows.part_names))
        np.testing.assert_allclose(found.mass[number], mass, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found.uniform[number], even, rtol=1e-4, atol=1e-6)
        counts = np.bincount(parts, minlength=len(rows.part_names))
        counts[-1] += len(text)
        assert found.tokens[number].tolist() == counts.tolist()
    assert np.abs(found.mass - found.uniform[:, None, None]).max() > 0.05  # this model's attention is not even


def test_meta_token_vectors_equal_those_of_each_document_alone(tokenizer: Tokenizer) -> None:
    trained = trained_model(tokenizer)
    layout = layout_for(tokenizer, position="meta_tokens", num_meta_tokens=3)
    assert required_columns(layout) == []
    rows = labelled_rows(layout, {}, num_documents=4, tokenizer=tokenizer)
    assert rows.part_names == ["bos", "wrapper", "meta_token_1", "meta_token_2", "meta_token_3", "text"]
    special = tokenizer.special
    assert rows.prefixes[0].tolist() == [special.bos, special.boc, *special.meta[:3], special.eoc]
    random = np.random.default_rng(0)
    texts = [random.integers(0, 256, length).astype(np.uint16) for length in (9, 5, 6, 20)]
    found = meta_token_attention(trained, rows, texts, num_tokens=6)
    assert found[1] is None
    for number in (0, 2, 3):
        seen: dict[int, torch.Tensor] = {}
        whole = torch.from_numpy(np.concatenate([rows.prefixes[number], texts[number]]))[None]
        watch_attention(trained.model, whole, seen.__setitem__)
        expected = seen[1][0].mean(0)[6:12, 2:5].flatten().numpy()  # six text tokens after six of the prefix
        vector = found[number]
        assert vector is not None
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-6)


def test_distances_equal_brute_force() -> None:
    points = np.random.default_rng(0).normal(size=(6, 4))
    euclidean, cosine = distance_matrix(points, "euclidean"), distance_matrix(points, "cosine")
    for i, j in np.ndindex(6, 6):
        assert euclidean[i, j] == pytest.approx(math.dist(points[i], points[j]), abs=1e-6)
        norms = np.linalg.norm(points[i]) * np.linalg.norm(points[j])
        assert cosine[i, j] == pytest.approx(1 - points[i] @ points[j] / norms, abs=1e-9)


def test_bins_differ_significantly_only_if_their_vectors_differ() -> None:
    random = np.random.default_rng(0)
    bins = ["low", "high", "mid"] * 12 + ["rare"] * 4 + [None] * 3
    center = {"low": 0, "high": 1, "mid": 2, "rare": 3, None: 4}
    noise = [random.normal(size=5).astype(np.float32) for _ in bins]
    planted: list[NumPyArray | None] = [
        vector + 10 * np.eye(5, dtype=np.float32)[center[name]] for vector, name in zip(noise, bins, strict=True)
    ]
    planted[0] = None
    report = compare_bins(planted, [None, *noise[1:]], pa.array(bins), column_name="quality", seed=0)
    assert report.bins == {"high": 12, "low": 11, "mid": 12}
    assert report.excluded == {"too_short": 1, "without_value": 3, "in_small_bins": 4}
    for found, control in zip(report.distances, report.untrained, strict=True):
        assert found.p_value == 0.001  # 1 / (1 + 999): no permutation is as large
        assert found.between > found.within
        assert control.p_value > 0.05
    kept = [i for i, name in enumerate(bins) if name in report.bins and i]
    points = np.stack([vector for i in kept if (vector := planted[i]) is not None])
    pairs = [(i, j) for i in range(35) for j in range(35) if i != j]
    names = [bins[i] for i in kept]
    within = [math.dist(points[i], points[j]) for i, j in pairs if names[i] == names[j]]
    between = [math.dist(points[i], points[j]) for i, j in pairs if names[i] != names[j]]
    euclidean = report.distances[1]
    assert (euclidean.within, euclidean.between) == pytest.approx((np.mean(within), np.mean(between)), rel=1e-5)
    low_mid = [math.dist(points[i], points[j]) for i, j in pairs if (names[i], names[j]) == ("low", "mid")]
    assert euclidean.pairs[1][2] == pytest.approx(np.mean(low_mid), rel=1e-5)


def test_p_values_of_random_vectors_are_uniform() -> None:
    values = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        vectors = [random.normal(size=3) for _ in range(20)]
        report = compare_bins(vectors, vectors, pa.array(["a", "b"] * 10), column_name="x", seed=seed)
        values.append(report.distances[1].p_value)
    assert 0.3 < float(np.mean(values)) < 0.7
    assert sum(value < 0.1 for value in values) < 7


def test_bins_of_numbers_are_in_ascending_order() -> None:
    vectors = [np.ones(2)] * 60
    bins = compare_bins(vectors, vectors, pa.array([10, 9, 2] * 20, pa.int8()), column_name="x", seed=0).bins
    assert list(bins) == ["2", "9", "10"]


def test_the_error_on_too_few_bins_lists_their_sizes() -> None:
    vectors = [np.ones(2)] * 9
    with pytest.raises(TrainerError, match=r"fewer than two bins have 5 documents .*: a 7, b 2 \(more"):
        compare_bins(vectors, vectors, pa.array(["a"] * 7 + ["b"] * 2), column_name="x", seed=0)


def report_of(*parts: str, layers: int = 3, heads: int = 12) -> AttentionReport:
    even = 1 / len(parts)
    return AttentionReport(
        name="a",
        step=7,
        layout="x",
        documents=9,
        excluded={},
        crop=8,
        seed=0,
        bins=None,
        parts=[
            PartReport(
                part=part,
                tokens=2.0,
                uniform=even,
                mass=Estimate(even, even, even),
                by_layer=[Estimate(even, even, even)] * layers,
                by_head=[[even * 2**layer] * heads for layer in range(layers)],
            )
            for part in parts
        ],
    )


def test_a_heat_map_for_each_part() -> None:
    figure = draw_attention(report_of("bos", "wrapper", *URL_PARTS, "text"))
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title().split("\n")[0] for axes in maps] == ["bos", "wrapper", *URL_PARTS, "text"]
    for axes in maps:
        shown = np.asarray(axes.images[0].get_array())
        np.testing.assert_allclose(shown, np.repeat([[0.0], [1.0], [2.0]], 12, axis=1))  # log2 of the multiple
        assert axes.images[0].get_clim() == (-2, 2)
    assert [text.get_text() for text in maps[4].get_xticklabels()] == ["1", "3", "5", "7", "9", "11"]


def test_names_of_bins_are_drawn_as_plain_text(tmp_path: Path) -> None:
    names = ["$x^", "日本 🙂", "\x1b[31m\x00<&>", "long " * 40]
    vectors = [np.full(3, float(i % 4)) + 0.1 * i for i in range(24)]
    report = compare_bins(vectors, vectors, pa.array(names * 6), column_name="x", seed=0)
    figure = draw_bins(report, title="t")
    assert max(len(label.get_text()) for label in figure.axes[0].get_xticklabels()) == 30
    png, svg = save_figure(figure, tmp_path / "bins")
    assert png.stat().st_size
    shown = {"".join(element.itertext()).strip() for element in ElementTree.fromstring(svg.read_text()).iter()}
    assert {"$x^", "日本 🙂", "�[31m�<&>"} <= shown


def test_a_heat_map_of_bins_for_each_distance() -> None:
    random = np.random.default_rng(0)
    vectors = [random.random(3) for _ in range(20)]
    report = compare_bins(vectors, vectors, pa.array(["a", "b"] * 10), column_name="x", seed=0)
    maps = [axes for axes in draw_bins(report, title="t").axes if axes.images]
    assert [axes.get_title().split(":")[0] for axes in maps] == ["cosine", "euclidean"]
    np.testing.assert_allclose(np.asarray(maps[1].images[0].get_array()), report.distances[1].pairs)
