"""The correlations of a study as a Markdown table."""

from __future__ import annotations

import math
from typing import Any

from renyi_lab.study._study import Study


def markdown_table(study: Study) -> str:
    """τ with its interval over settings, and Ψ, of every measure for both gaps, as a Markdown table."""
    loss, error = study.kendall("loss"), study.kendall("error")
    lines = [
        "| measure | loss gap: τ [95 %] | within | error gap: τ [95 %] | within | models | settings |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in loss.index:
        cells = [f"{_interval(table.loc[name])} | {_signed(table.loc[name, 'within'])}" for table in (loss, error)]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {loss.loc[name, 'num_models']} | {loss.loc[name, 'num_settings']} |"
        )
    return "\n".join(lines)


def _interval(row: Any) -> str:
    if math.isnan(row["tau"]):
        return str(row["remark"])
    if math.isnan(row["low"]):
        return f"{_signed(row['tau'])} ({row['remark']})"
    return f"{_signed(row['tau'])} [{_signed(row['low'])}, {_signed(row['high'])}]"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")
