"""The figure of one or two reports: spectral measures by block, and the measures of the whole network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.figure import NotebookFigure, new_figure
from renyi_lab.plots import BLUE, GREY, ORANGE
from renyi_lab.sharpness._text import with_error

Estimates = Mapping[tuple[str, str], Estimate]

_WHOLE = "whole"
_RENYI = "renyi_sharpness"
_SPECTRAL = ("trace", "lambda_max", "frobenius_norm", "log_determinant")
_COLORS = (BLUE, ORANGE)
_NUM_ERRORS = 2
_COLUMNS = 4
_INCHES_PER_ROW, _INCHES_AROUND = 0.27, 0.85
# Factor by which a logarithmic axis may go beyond the values, so that one long error bar does not hide the rest.
_MARGIN = 4.0
_UNBOUNDED, _WIDEST = 300.0, 1e6  # relative error without a bound, and the factor drawn for it


def plot_reports(reports: Sequence[Estimates], labels: Sequence[str]) -> NotebookFigure:
    """Spectral measures in a panel each, with a row per block; below, the other measures of the whole network."""
    keys = list(dict.fromkeys(key for report in reports for key in report))
    blocks = list(dict.fromkeys(block for _, block in keys))
    of_blocks = {measure for measure, block in keys if block != _WHOLE}
    measures = [name for name in dict.fromkeys(measure for measure, _ in keys) if _is_known(reports, name)]
    spectral = [name for name in measures if name in of_blocks or name in _SPECTRAL or name.startswith(_RENYI)]
    single = [name for name in measures if name not in spectral]
    height = math.ceil(len(spectral) / _COLUMNS) * (_INCHES_AROUND + _INCHES_PER_ROW * len(blocks))
    heights = [*([height + 0.3] if spectral else []), *([1.0 + _INCHES_PER_ROW * len(single)] if single else [])]
    figure = new_figure(10.5, sum(heights) or 1.0, alt=_described(reports, labels, len(blocks) - 1))
    parts = list(figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]) if heights else []
    if spectral:
        _plot_spectral(parts.pop(0), reports, labels, spectral, blocks)
    if single:
        ax = parts.pop(0).subplots()
        _plot_ratios(ax, reports, labels, single) if len(reports) > 1 else _plot_values(ax, reports[0], single)
    return figure


def _described(reports: Sequence[Estimates], labels: Sequence[str], num_blocks: int) -> str:
    where = f"of the whole network and of {num_blocks} blocks" if num_blocks > 0 else "of the whole network"
    if len(reports) == 1:
        return f"Measures of sharpness {where}: dots with bars of two standard errors, one panel per spectral measure."
    a, b = (f"{name!r}" for name in labels)
    compared = [ratio for key in reports[0] if key[1] == _WHOLE and (ratio := _ratio(reports, key[0]))]
    larger = sum(ratio > 1 and ratio > spread for ratio, spread in compared)
    smaller = sum(ratio < 1 and ratio < 1 / spread for ratio, spread in compared)
    return (
        f"Measures of sharpness {where}, {a} beside {b}, with bars of two standard errors. Of {len(compared)} "
        f"positive measures of the whole network, {larger} are larger for {b} by more than two standard errors, and "
        f"{smaller} are larger for {a}."
    )


def _is_known(reports: Sequence[Estimates], measure: str) -> bool:
    return any(name == measure and math.isfinite(e.value) for report in reports for (name, _), e in report.items())


def _plot_spectral(
    figure: SubFigure,
    reports: Sequence[Estimates],
    labels: Sequence[str],
    measures: Sequence[str],
    blocks: Sequence[str],
) -> None:
    num_lines = math.ceil(len(measures) / _COLUMNS)
    panels = figure.subplots(num_lines, min(_COLUMNS, len(measures)), sharey=True, squeeze=False).ravel()
    for ax, measure in zip(panels, measures, strict=False):
        found = [e for report in reports for block in blocks if (e := report.get((measure, block)))]
        for index, report in enumerate(reports):
            shift = 0.16 * (2 * index - 1) if len(reports) > 1 else 0.0
            points = {row + shift: e for row, block in enumerate(blocks) if (e := report.get((measure, block)))}
            _draw(ax, points, _COLORS[index], labels[index])
        ax.set_title(measure, fontsize="medium")
        ax.set_xlabel("nats" if measure.startswith(_RENYI) else "", fontsize="small")
        _rows(ax, blocks)
        _scale(ax, found)
    _share_limits([ax for ax, name in zip(panels, measures, strict=False) if name.startswith(_RENYI)])
    for ax in panels[len(measures) :]:
        ax.set_visible(False)
    if len(reports) > 1:
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper right", ncols=2, frameon=False)
    bars = f"bars: ± {_NUM_ERRORS} standard errors"
    figure.suptitle(bars, x=0.01, ha="left", fontsize="small", color=GREY)


def _draw(ax: Axes, points: Mapping[float, Estimate], color: str, label: str) -> None:
    """One dot per estimate with its bar, hollow where the error is not finite."""
    finite = {row: e for row, e in points.items() if math.isfinite(e.value) and math.isfinite(e.standard_error)}
    hollow = [(e.value, row) for row, e in points.items() if math.isfinite(e.value) and row not in finite]
    style: dict[str, Any] = {"fmt": "o", "ms": 4.5, "lw": 1.4, "color": color}
    errors = [_NUM_ERRORS * e.standard_error for e in finite.values()]
    ax.errorbar([e.value for e in finite.values()], list(finite), xerr=errors, label=label, **style)
    if hollow:
        ax.plot(*zip(*hollow, strict=True), "o", ms=4.5, color=color, mfc="white")


def _scale(ax: Axes, estimates: Sequence[Estimate]) -> None:
    """A logarithmic axis for positive values over more than a decade, a linear one for others."""
    values = [e.value for e in estimates if math.isfinite(e.value)]
    if min(values) <= 0 or max(values) < 10 * min(values):
        ax.xaxis.set_major_locator(MaxNLocator(4))
        return
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(numticks=4))
    ax.xaxis.set_minor_locator(NullLocator())
    known = [(e.value, e.standard_error) for e in estimates if math.isfinite(e.value)]
    bars = [(v, _NUM_ERRORS * s if math.isfinite(s) else 0.0) for v, s in known]
    low = min(max(v - bar, v / _MARGIN) for v, bar in bars)
    high = max(min(v + bar, v * _MARGIN) for v, bar in bars)
    ax.set_xlim(low / 1.6, high * 1.6)


def _share_limits(panels: Sequence[Axes]) -> None:
    limits = [ax.get_xlim() for ax in panels]
    for ax in panels:
        ax.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))


def _rows(ax: Axes, names: Sequence[str]) -> None:
    """One row per name from the top, separated by thin lines."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize="small")
    ax.minorticks_off()
    for row in range(1, len(names)):
        ax.axhline(row - 0.5, color=GREY, lw=0.4, alpha=0.4, zorder=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _beside(ax: Axes, texts: Sequence[str]) -> None:
    """Text to the right of each row."""
    for row, text in enumerate(texts):
        ax.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize="small")


def _plot_values(ax: Axes, report: Estimates, measures: Sequence[str]) -> None:
    estimates = [report[measure, _WHOLE] for measure in measures]
    shown = {float(row): e for row, e in enumerate(estimates) if 0 < e.value < math.inf}
    _draw(ax, shown, BLUE, "")
    _rows(ax, measures)
    if shown:
        _scale(ax, list(shown.values()))
    _beside(ax, [with_error(e) for e in estimates])
    ax.set_title("whole network, each measure in its own unit", fontsize="medium")


def _ratio(reports: Sequence[Estimates], measure: str) -> tuple[float, float] | None:
    """Ratio b/a of a positive measure of the whole network, and the factor that is two standard errors."""
    first, second = (report.get((measure, _WHOLE)) for report in reports)
    if first is None or second is None or not (0 < first.value < math.inf and 0 < second.value < math.inf):
        return None
    relative = math.hypot(first.standard_error / first.value, second.standard_error / second.value)
    spread = math.exp(_NUM_ERRORS * relative) if relative < _UNBOUNDED else math.inf  # NaN too
    return second.value / first.value, spread


def _plot_ratios(ax: Axes, reports: Sequence[Estimates], labels: Sequence[str], measures: Sequence[str]) -> None:
    ratios = [_ratio(reports, measure) for measure in measures]
    ax.axvline(1, color=GREY, lw=1, zorder=0)
    for row, found in enumerate(ratios):
        if found is None:
            continue
        ratio, spread = found[0], min(found[1], _WIDEST)
        color = GREY if 1 / spread <= ratio <= spread else _COLORS[ratio > 1]
        ax.plot([ratio / spread, ratio * spread], [row, row], color=color, lw=1.4)
        ax.plot(ratio, row, "o", ms=5.5, color=color)
    _ratio_axis(ax, [found[0] for found in ratios if found])
    _rows(ax, measures)
    pairs = [[with_error(report.get((m, _WHOLE), Estimate(math.nan))) for report in reports] for m in measures]
    _beside(ax, ["  →  ".join(pair) for pair in pairs])
    a, b = labels
    ax.set_title("whole network: ratio of the second to the first, and both values", fontsize="medium")
    ax.set_xlabel(f"larger for {a}   ←   1   →   larger for {b}", fontsize="small")


def _ratio_axis(ax: Axes, ratios: Sequence[float]) -> None:
    """A logarithmic axis around 1 with ticks that read as factors."""
    ax.set_xscale("log", base=2)
    reach = max([*(max(ratio, 1 / ratio) for ratio in ratios), 1.1]) * 1.3
    ax.set_xlim(1 / reach, reach)
    largest = math.floor(math.log2(reach))
    if largest == 0:
        near = [factor for factor in (0.6, 0.8, 0.9, 1.0, 1.1, 1.25, 1.6) if 1 / reach < factor < reach]
        ax.set_xticks(near, [f"{factor:g}" for factor in near])
        return
    step = max(1, math.ceil(largest / 4))
    powers = range(-step * (largest // step), largest + 1, step)
    factors = [f"{2**power}" if power >= 0 else f"1/{2**-power}" for power in powers]
    ax.set_xticks([2.0**power for power in powers], factors)
