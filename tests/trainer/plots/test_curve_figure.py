from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colophon.trainer.errors import TrainerError
from colophon.trainer.plots.curve_figure import _moved_apart, draw_curves, smoothed, smoothing_for
from colophon.trainer.plots.curves import Curve
from colophon.trainer.plots.figures import COLOURS, figure_paths, save_figure, style_of


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 0.99))
def test_smoothing_is_the_weighted_mean_of_the_values_so_far(values: list[float], factor: float) -> None:
    weights = [[factor ** (i - j) if j <= i else 0.0 for j in range(len(values))] for i in range(len(values))]
    expected = [np.average(values, weights=row) for row in weights]
    np.testing.assert_allclose(smoothed(np.array(values), factor=factor), expected, rtol=1e-6, atol=1e-3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_labels_are_moved_apart_and_keep_their_order(heights: list[float]) -> None:
    moved = np.array(_moved_apart(heights, gap=0.05))
    order = np.argsort(heights, kind="stable")
    assert (np.diff(moved[order]) >= 0.05 - 1e-9).all()
    assert abs(moved.mean() - np.mean(heights)) < 0.05 * len(heights)
    if (np.diff(np.sort(heights)) >= 0.05).all():
        np.testing.assert_allclose(moved, heights)


def curve(name: str, *, steps: int = 5, validations: int = 2) -> Curve:
    x, v = np.arange(1.0, steps + 1), np.linspace(1, 5, validations)
    return Curve(name=name, x=x, y=10 / x, validation_x=v, validation_y=9 / v)


@pytest.mark.parametrize("smooth", [0.0, 0.9])
def test_a_figure_has_a_line_a_run_and_a_point_a_validation(smooth: float) -> None:
    curves = [curve("a"), curve("b", steps=9, validations=3), curve("c", validations=0)]
    figure = draw_curves(curves, x="step", y="text_loss", smooth=smooth)
    (axes,) = figure.axes
    lines = [line for line in axes.lines if line.get_marker() == "None"]
    named = {line.get_label(): line for line in lines if not str(line.get_label()).startswith("_")}
    assert set(named) == {"a", "b", "c"}
    assert len(lines) == (6 if smooth else 3)  # raw values are drawn under the smoothed ones
    for each in curves:
        np.testing.assert_allclose(np.asarray(named[each.name].get_ydata(), float), smoothed(each.y, factor=smooth))
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [len(np.asarray(line.get_xdata())) for line in points] == [2, 3]
    assert {text.get_text() for text in axes.texts} == {"a", "b", "c"}
    assert axes.get_xlabel() == "steps"
    assert axes.get_ylabel() == "loss on text (nats per token)"
    assert [line.get_color() for line in named.values()] == list(COLOURS[:3])


def test_many_runs_have_a_legend_and_different_styles() -> None:
    figure = draw_curves([curve(f"run {i}") for i in range(12)], x="tokens", y="loss")
    (legend,) = figure.legends
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert legend.get_window_extent().y0 >= 0  # it is not cut off and does not cover the curves
    assert axes.get_window_extent().width > 0.8 * figure.bbox.width
    assert [text.get_text() for text in legend.get_texts()] == [f"run {i}" for i in range(12)]
    assert len({style_of(i) for i in range(28)}) == 28


def test_a_single_run_with_validation_alone_can_be_drawn() -> None:
    alone = Curve(name="a", x=np.empty(0), y=np.empty(0), validation_x=np.array([1.0, 2]), validation_y=np.ones(2))
    (axes,) = draw_curves([alone], x="step", y="validation_text_loss").axes
    (line,) = axes.lines
    assert (line.get_marker(), line.get_linestyle(), line.get_label()) == ("o", "-", "a")


def test_a_learning_rate_is_smoothed_only_on_request() -> None:
    for smooth, lines in ((None, 1), (0.5, 2)):
        (axes,) = draw_curves([curve("a", validations=0)], x="step", y="lr", smooth=smooth).axes
        assert len(axes.lines) == lines


def test_short_curves_are_smoothed_less() -> None:
    factors = [smoothing_for([curve("a", steps=n), curve("b", steps=2)], "loss") for n in (2, 40, 100, 200, 400, 9999)]
    assert factors == [0, 0, 0.6, 0.8, 0.9, 0.9]
    assert smoothing_for([curve("a", steps=9999)], "lr") == 0
    (axes,) = draw_curves([curve("a", steps=100, validations=0)], x="step", y="loss").axes
    assert axes.get_title() == "lines: training, smoothed by 0.6; pale: each step"
    np.testing.assert_allclose(
        np.asarray(axes.lines[1].get_ydata(), float), smoothed(curve("a", steps=100).y, factor=0.6)
    )


def test_nan_has_no_weight() -> None:
    values = np.array([np.nan, 1.0, np.nan, 3.0])
    found = smoothed(values, factor=0.5)
    np.testing.assert_allclose(found, [np.nan, 1.0, 1.0, (3 * 0.5 + 1 * 0.125) / 0.625])


def spiked(*, step: int, value: float) -> Curve:
    """100 steps from 8.3 to 3, one of them with `value`."""
    found = curve("a", steps=100, validations=0)
    y = 3 + 5.3 * np.exp(-found.x / 25)
    y[step - 1] = value
    return replace(found, y=y)


def test_a_spike_of_one_step_is_drawn_in_full_and_stays_narrow() -> None:
    spike = spiked(step=24, value=12.5)
    (axes,) = draw_curves([spike], x="step", y="loss").axes
    low, high = axes.get_ylim()
    assert low < spike.y.min()
    assert high > 12.5
    pale, line = (np.asarray(each.get_ydata(), float) for each in axes.lines)
    np.testing.assert_array_equal(pale, spike.y)
    assert line[23] > 8
    assert line[27] - spike.y[27] < 0.1 * 12.5


def test_outliers_are_cut_off_and_counted() -> None:
    wild = spiked(step=50, value=1e4)
    (axes,) = draw_curves([wild], x="step", y="grad_norm").axes
    assert axes.get_ylim()[1] < 10
    assert axes.get_title() == "lines: training, smoothed by 0.6; pale: each step; 1 value beyond the axis"
    assert np.asarray(axes.lines[1].get_ydata(), float).max() < 10


def test_labels_are_connected_to_the_ends_of_their_curves() -> None:
    from matplotlib.text import Annotation

    curves = [curve("a"), curve("b", steps=9)]
    (axes,) = draw_curves(curves, x="step", y="loss", smooth=0).axes
    for each, text in zip(curves, axes.texts, strict=True):
        assert isinstance(text, Annotation)
        assert text.xy == (each.x[-1], each.y[-1])
        assert text.arrow_patch is not None


@pytest.mark.parametrize("smooth", [-0.1, 1.0])
def test_a_smoothing_factor_out_of_range_is_refused(smooth: float) -> None:
    with pytest.raises(TrainerError, match="smooth must be at least 0 and below 1"):
        draw_curves([curve("a")], x="step", y="loss", smooth=smooth)


def test_files_are_valid_and_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    written = [
        save_figure(draw_curves([curve("ä <run> & co")], x="step", y="loss"), tmp_path / place / "curves")
        for place in ("one", "two")
    ]
    png, svg = written[0]
    assert [path.name for path in (png, svg)] == ["curves.png", "curves.svg"]
    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert png.read_bytes().endswith(b"IEND\xaeB`\x82")
    root = ElementTree.fromstring(svg.read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {(element.text or "").strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"ä <run> & co", "steps"} <= texts
    assert [path.read_bytes() for path in written[0]] == [path.read_bytes() for path in written[1]]
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["curves.png", "curves.svg"]


def test_the_suffix_decides_the_format() -> None:
    assert figure_paths(Path("a/b.svg")) == [Path("a/b.svg")]
    assert figure_paths(Path("a/b")) == [Path("a/b.png"), Path("a/b.svg")]
    with pytest.raises(TrainerError, match=r"written as \.png or \.svg"):
        figure_paths(Path("a/b.pdf"))


def test_the_error_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(TrainerError, match=r"install colophon\[plot\]"):
        draw_curves([curve("a")], x="step", y="loss")
