from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from colophon.trainer.probes.fits import Fit
from colophon.trainer.probes.probing import _warnings
from colophon.trainer.probes.report import ColumnReport, Excluded, ProbeReport, ProbeResult
from colophon.trainer.probes.score_figure import draw_probes
from tests.trainer.probes.results import column_report, result_with, score


@pytest.mark.parametrize("interval", [True, False])
def test_curves_have_a_line_for_each_probe_and_control(interval: bool) -> None:
    results = [
        ProbeResult(
            layer=layer,
            states=states,
            probe=kind,
            model=model,
            score=score(0.3 + layer / 10, interval=interval),
            accuracy_over_untrained=None,
            chosen=0.1,
            epochs=3,
            warnings=(),
        )
        for layer in (0, 1, 2)
        for states in ("last", "mean")
        for kind in ("linear", "mlp")
        for model in ("trained", "untrained", "shuffled")
    ]
    columns = [
        ColumnReport(
            column=name,
            split_by="document",
            classes={"a": {"train": 9, "validation": 3, "test": 3}, "b": {"train": 9, "validation": 3, "test": 3}},
            groups={"train": 18, "validation": 6, "test": 6},
            excluded=Excluded(),
            majority=score(0.4),
            permutations=5,
            results=results,
        )
        for name in ("topic", "quality")
    ]
    report = ProbeReport(name="a", step=7, output="out", context="none", documents=30, crop=8, seed=0, columns=columns)
    figure = draw_probes(report)
    assert len(figure.axes) == 4
    for axes in figure.axes:
        assert len(axes.lines) == 7  # two kinds of probe, each with its two controls, and the most frequent class
        assert len(axes.collections) == (2 if interval else 0)
        np.testing.assert_allclose(np.asarray(axes.lines[0].get_ydata(), float), [0.3, 0.4, 0.5])
    assert len(figure.legends) == 1
    assert report.as_dict()["columns"][1]["majority"]["accuracy"]["value"] == 0.4


@pytest.mark.parametrize(("value", "is_suspect"), [(0.4 - 1e-3, True), (0.1 + 0.3, True), (0.4 + 1e-3, False)])
def test_a_probe_no_better_than_the_most_frequent_class_has_a_warning(value: float, is_suspect: bool) -> None:
    fit = Fit(classes=np.zeros(1, np.int64), chosen=1.0, epochs=3, warning=None)
    assert _warnings(fit, score(value), score(0.4)) == (("not_above_majority",) if is_suspect else ())


def test_points_with_warnings_are_hollow_in_the_figure() -> None:
    results = [
        replace(result_with(*warnings, layer=layer, model=model), probe=kind)
        for kind in ("linear", "mlp")
        for layer, warnings in enumerate([("limit",), ()])
        for model in ("trained", "untrained", "shuffled")
    ]
    column = column_report({"a": (60, 20, 20), "b": (60, 20, 20)}, results)
    report = ProbeReport(name="a", step=7, output="out", context="none", documents=9, crop=8, seed=0, columns=[column])
    figure = draw_probes(report)
    hollow = [line for line in figure.axes[1].lines if line.get_markerfacecolor() == "white"]
    assert [np.asarray(line.get_xdata()).tolist() for line in hollow] == [[0]] * 4  # not of shuffled labels
    assert min(line.get_zorder() for line in hollow) > max(
        line.get_zorder() for line in figure.axes[1].lines if line not in hollow
    )
    assert "hollow" in figure.get_suptitle()
