"""``python -m renyi_lab.study``: repeat the standard study and print its table."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from renyi_lab._utils.optional import optional_import
from renyi_lab._utils.standard_streams import spell_out_what_cannot_be_encoded
from renyi_lab.study import DATA_SETS, QUICK_GRID, STANDARD_GRID, run_study, standard_data
from renyi_lab.study._table import markdown_table

with optional_import("typer", extra="cli,data,study", needed_by="The command python -m renyi_lab.study"):
    import typer


def main(
    out: Annotated[Path, typer.Option(help="File for the records; an existing one is resumed.")],
    quick: Annotated[bool, typer.Option("--quick", help="Only a part of the grid; two minutes on two cores.")] = False,
    jobs: Annotated[int, typer.Option(help="Number of parallel trainings; -1 uses every core.")] = 2,
    data_set: Annotated[str, typer.Option(help=f"{' or '.join(DATA_SETS)}.")] = DATA_SETS[0],
) -> None:
    """Train a grid of MLPs and CNNs, measure them, and correlate with both generalization gaps."""
    start = time.perf_counter()
    try:
        data = standard_data(data_set)
        study = run_study(QUICK_GRID if quick else STANDARD_GRID, data=data, path=out, n_jobs=jobs)
        table = markdown_table(study)
    except (ValueError, OSError, ModuleNotFoundError) as error:  # OSError: a full disk; the last: no extra installed
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    minutes = (time.perf_counter() - start) / 60
    typer.echo(f"{study!r}\n\n{table}\n")
    typer.echo(f"{minutes:.1f} minutes; {study.cpu_seconds / 60:.1f} minutes of processor time in total.")


if __name__ == "__main__":
    spell_out_what_cannot_be_encoded()
    typer.run(main)
