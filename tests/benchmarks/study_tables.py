"""The tables of the correlation study, from the records that come with the package: nothing is trained.

python tests/benchmarks/study_tables.py
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from _common import argument_parser, finish, prepare

from renyi_lab.study import Study

GAPS = ("loss", "error")
COLUMNS = ("tau", "low", "high", "within")


def records(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Row → column → number; ``None`` where a τ is undefined."""
    kept = table[[name for name in COLUMNS if name in table]]
    return {
        f"{row:g}" if isinstance(row, float) else str(row): {
            name: None if math.isnan(value) else round(value, 6) for name, value in values.items()
        }
        for row, values in kept.to_dict("index").items()
    }


def tables(study: Study) -> dict[str, Any]:
    """Counts, and Kendall's τ of every measure and of every order of Rényi sharpness with both gaps."""
    return {
        "models": len(study.kept),
        "kendall": {gap: records(study.kendall(gap)) for gap in GAPS},
        "curve": {gap: records(study.tau_against_alpha(gap)) for gap in GAPS},
    }


def study_tables(study: Study) -> dict[str, Any]:
    """Everything that the results page shows."""
    mlps, cnns = (study.select(architecture=name) for name in ("mlp", "cnn1d"))
    first = mlps.tau_against_alpha("loss", measure="renyi_sharpness [first]")
    return {
        "trainings": len(study.records),
        "dropped": study.num_dropped,
        "diverged": study.num_diverged,
        "min_accuracy": study.min_accuracy,
        "cnns": len(cnns.kept),
        "cpu_minutes": round(study.cpu_seconds / 60, 2),
        "error_gaps": {
            name: [round(f(record.error_gap for record in part.kept), 4) for f in (min, max)]
            for name, part in (("mlp", mlps), ("cnn1d", cnns))
        },
        "chosen_alphas": sorted({alpha for r in study.kept for alpha in r.measurement.chosen_alphas.values()}),
        "all": tables(study),
        "mlps": {**tables(mlps), "first_layer_curve": {"loss": records(first)}},
        "mlps_under_trained_kept": tables(mlps.with_minimum(0)),
    }


def main(arguments: list[str] | None = None) -> None:
    """Compute the tables and write the JSON file."""
    parser = argument_parser(__doc__, "study_tables")
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    finish(options.out, circumstances, **study_tables(Study.standard()))


if __name__ == "__main__":
    main()
