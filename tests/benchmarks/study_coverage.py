"""How often the intervals of Kendall's τ contain the true one: by setting, and by model, on simulated studies.

python tests/benchmarks/study_coverage.py

Ten minutes on one core. The simulated studies are those of `tests/tools/clustered_data.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from _common import argument_parser, finish, positive, prepare

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from clustered_data import DESIGNS, Design, coverage


def row(design: Design, num_studies: int) -> dict[str, Any]:
    """Coverage and mean width of both intervals."""
    found: dict[str, Any] = {"design": design.name, "tau": round(design.true_tau(), 4)}
    for name, by_setting in (("settings", True), ("models", False)):
        share, width = coverage(design, num_studies, by_setting=by_setting)
        found[name] = {"coverage": round(share, 4), "width": round(width, 4)}
    return found


def main(arguments: list[str] | None = None) -> None:
    """Simulate and write the JSON file."""
    parser = argument_parser(__doc__, "study_coverage")
    parser.add_argument("--studies", type=positive, default=1000, help="simulated studies per design (%(default)s)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.studies = 5
    circumstances = prepare(parser, options)
    designs = [row(design, options.studies) for design in DESIGNS]
    finish(options.out, circumstances, num_studies=options.studies, designs=designs)


if __name__ == "__main__":
    main()
