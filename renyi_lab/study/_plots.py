"""Figures of the tables that `Study` computes for each gap."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from renyi_lab._utils.figure import NotebookFigure, new_figure
from renyi_lab.plots import BLUE, GREEN, GREY, ORANGE, PURPLE
from renyi_lab.study._tables import check_measure

_GAP_COLORS = {"loss": BLUE, "error": ORANGE}
_INCHES_PER_MEASURE = 0.26


def plot_taus(tables: Mapping[str, pd.DataFrame], num_models: int, num_settings: int) -> NotebookFigure:
    """One row per measure: τ with its 95 % interval on each gap, where it is defined."""
    names = list(next(iter(tables.values())).index)
    gaps = " and ".join(f"{gap} gap" for gap in tables)
    alt = f"Kendall's τ of {len(names)} measures with {gaps}, each with its 95 % interval over {num_settings} settings."
    figure = new_figure(7.5, 1.2 + _INCHES_PER_MEASURE * len(names), alt=alt)
    ax = figure.subplots()
    for shift, (gap, table) in zip((-0.14, 0.14), tables.items(), strict=False):
        rows = np.arange(len(names)) + shift
        errors = np.maximum([table["tau"] - table["low"], table["high"] - table["tau"]], 0)
        ax.errorbar(table["tau"], rows, xerr=errors, fmt="o", ms=4, color=_GAP_COLORS[gap], label=f"{gap} gap", lw=1.2)
    ax.axvline(0, color=GREY, lw=0.8)
    models = f"{num_models} models in {num_settings} settings"
    ax.set(xlim=(-1, 1), xlabel=f"Kendall's τ with the gap, 95 % interval\n{models}")
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.legend(loc="lower right", fontsize="small")
    return figure


def plot_measure(frame: pd.DataFrame, tables: Mapping[str, pd.DataFrame], measure: str) -> NotebookFigure:
    """Each gap of the models in ``frame`` against one measure, coloured by architecture."""
    check_measure(measure, list(next(iter(tables.values())).index))
    families = list(frame.groupby("architecture")) if "architecture" in frame else [("all models", frame)]
    shown = " (left) and ".join(f"{gap} gap" for gap in tables) + (" (right)" if len(tables) > 1 else "")
    figure = new_figure(4.5 * len(tables), 3.4, alt=f"{shown} of {len(frame)} models against {measure}.".capitalize())
    for ax, gap in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables, strict=True):
        colors = itertools.cycle((BLUE, ORANGE, GREEN, PURPLE))
        for color, (family, part) in zip(colors, families, strict=False):
            ax.plot(part[measure], part[f"{gap}_gap"], "o", ms=4, alpha=0.8, color=color, label=str(family))
        ax.set(ylabel=f"{gap} gap", title=f"τ = {tables[gap].loc[measure, 'tau']:.2f}")
        ax.set_xlabel(measure, parse_math=False)
    for text in ax.legend(fontsize="small").get_texts():
        text.set_parse_math(False)  # names from a file are no formulas
    return figure


def plot_alpha(curves: Mapping[str, pd.DataFrame], measure: str) -> NotebookFigure:
    """τ(α) on each gap, with 95 % bands over settings."""
    gaps = " and ".join(f"{gap} gap" for gap in curves)
    alt = f"Kendall's τ of {measure} with {gaps} against the order α, with 95 % bands over settings."
    figure = new_figure(5.5, 3.4, alt=alt)
    ax = figure.subplots()
    for gap, curve in curves.items():
        color = _GAP_COLORS[gap]
        alphas = curve.index.to_numpy(dtype=float)
        ax.plot(alphas, curve["tau"], "o-", ms=4, color=color, label=f"{gap} gap")
        ax.fill_between(alphas, curve["low"].astype(float), curve["high"].astype(float), color=color, alpha=0.15, lw=0)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set(xlabel="α", ylabel="Kendall's τ", ylim=(-1, 1))
    ax.set_title(measure, parse_math=False)
    ax.legend(fontsize="small")
    return figure
