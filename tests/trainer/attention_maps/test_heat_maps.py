from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa

from colophon.trainer.attention_maps.bins import compare_bins
from colophon.trainer.attention_maps.heat_maps import draw_attention, draw_bins
from colophon.trainer.attention_maps.parts import URL_PARTS
from colophon.trainer.attention_maps.report import AttentionReport, PartReport
from colophon.trainer.evaluation.bootstrap import Estimate
from colophon.trainer.plots.figures import save_figure


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
