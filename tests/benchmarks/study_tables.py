"""The tables of the correlation study, from the records that come with the package: nothing is trained.

python tests/benchmarks/study_tables.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from _common import argument_parser, finish, prepare

from renyi_lab.study import ALPHA_GRID, DATA_SETS, Study, sign_table

GAPS = ("loss", "error")
COLUMNS = ("tau", "low", "high", "within")
ONE_MEASURE = "renyi_sharpness_1.5"


def records(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Row → column → number; ``None`` where a τ is undefined or has no interval."""
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
        "settings": study.num_settings,
        "kendall": {gap: records(study.kendall(gap)) for gap in GAPS},
        "curve": {gap: records(study.tau_against_alpha(gap)) for gap in GAPS},
    }


def choices(study: Study) -> dict[str, list[str]]:
    """What one may choose from: from one measure to every column of the table."""
    every = study.kendall(alphas=ALPHA_GRID)["tau"].dropna().index
    whole = [name for name in every if "[" not in name]
    return {
        "one measure": [ONE_MEASURE],
        "the curve over α": [f"renyi_sharpness_{alpha:g}" for alpha in ALPHA_GRID],
        "whole network": whole,
        "blocks too": list(every),
    }


def best_of_many(study: Study, gap: str) -> dict[str, dict[str, Any]]:
    """Per choice: the best measure, what the best reaches by chance, and what is left of it on held-out settings."""
    taus = study.kendall(gap, alphas=ALPHA_GRID)["tau"]
    result = {}
    for name, measures in choices(study).items():
        best = taus[measures].abs().idxmax()
        null = study.null_distribution(gap, measures=measures, alphas=ALPHA_GRID)
        split = study.split_half(gap, measures=measures, alphas=ALPHA_GRID)
        result[name] = {
            "measures": null.num_measures,
            "best": best,
            "tau": round(float(taus[best]), 6),
            "null_median": round(null.median, 4),
            "null_95": round(null.quantile_95, 4),
            "p_value": round(null.p_value(float(taus[best])), 4),
            "chosen": round(split.chosen, 4),
            "held_out": round(split.held_out, 4),
        }
    return result


def families(study: Study) -> dict[str, Study]:
    """Architecture → its part of the study, for those with models at a minimum."""
    names = dict.fromkeys(record.axes["architecture"] for record in study.kept)
    return {str(name): study.select(architecture=name) for name in sorted(names, key=str)}


def data_set_tables(study: Study) -> dict[str, Any]:
    """Everything that the results page shows of one data set."""
    parts = families(study)
    return {
        "trainings": len(study.records),
        "dropped": study.num_dropped,
        "diverged": study.num_diverged,
        "cpu_minutes": round(study.cpu_seconds / 60, 2),
        "error_gaps": {
            name: [round(f(record.error_gap for record in part.kept), 4) for f in (min, max)]
            for name, part in parts.items()
        },
        "chosen_alphas": sorted({alpha for r in study.kept for alpha in r.measurement.chosen_alphas.values()}),
        "all": tables(study),
        "families": {name: tables(part) for name, part in parts.items()},
        "mlps_first_layer": {
            "loss": records(parts["mlp"].tau_against_alpha("loss", measure="renyi_sharpness [first]"))
        },
        "mlps_under_trained_kept": tables(parts["mlp"].with_minimum(0)),
        "best_of_many": {gap: best_of_many(parts["mlp"], gap) for gap in GAPS},
    }


def signs(studies: Mapping[str, Study], gap: str) -> dict[str, dict[str, Any]]:
    """Per measure: which sign its τ has in all parts, and in how many its interval excludes 0."""
    table = sign_table(studies, gap).drop(columns="certain").round(6)
    return {str(measure): row for measure, row in table.to_dict("index").items()}


def study_tables(studies: Mapping[str, Study]) -> dict[str, Any]:
    """The tables of every data set."""
    first = next(iter(studies.values()))
    return {
        "min_accuracy": first.min_accuracy,
        "signs": {gap: signs(studies, gap) for gap in GAPS},
        "studies": {name: data_set_tables(study) for name, study in studies.items()},
    }


def standard_studies() -> dict[str, Study]:
    """The studies that come with the package, by data set."""
    return {name: Study.standard(data_set=name) for name in DATA_SETS}


def main(arguments: list[str] | None = None) -> None:
    """Compute the tables and write the JSON file."""
    parser = argument_parser(__doc__, "study_tables")
    options = parser.parse_args(arguments)
    circumstances = prepare(parser, options)
    finish(options.out, circumstances, **study_tables(standard_studies()))


if __name__ == "__main__":
    main()
