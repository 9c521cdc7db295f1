"""What the benchmarks share: command-line options, the circumstances of a measurement, targets, and the JSON file.

`python docs/generate.py` turns the JSON files into the results pages of the documentation.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table

import renyi_lab

RESULTS = Path(__file__).resolve().parent / "results"
COURSE_RESULTS = RESULTS.parents[2] / "notebooks" / "results"  # copies of those that a notebook shows
DEFAULT_THREADS = 2  # what the targets were set for
_WIDTH = 200  # columns of the terminal's tables


@dataclass(frozen=True)
class Target:
    """A claim that a benchmark checks."""

    claim: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def positive(text: str) -> int:
    """An ``argparse`` type."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def argument_parser(description: str, name: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(prog=f"{name}.py", description=description.split("\n")[0])
    parser.add_argument(
        "--out", type=Path, help=f"JSON file (default: results/{name}.json beside the script; with --quick in build/)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny settings, to check that everything runs")
    parser.add_argument("--threads", type=positive, default=DEFAULT_THREADS, help="threads of torch (%(default)s)")
    parser.set_defaults(name=name)
    return parser


def cache_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--cache``, the folder of the dense Hessians that two benchmarks share."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "renyi_lab"
    parser.add_argument("--cache", type=Path, default=default, help="folder for dense Hessians, 300 MB (%(default)s)")


def prepare(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, Any]:
    """Set the number of threads, check that ``--out`` can be written, and return the circumstances at the start."""
    torch.set_num_threads(options.threads)
    if options.out is None:
        options.out = (Path("build") if options.quick else RESULTS) / f"{options.name}.json"
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out}: {error}")
    if options.out.is_dir() or not os.access(options.out.parent, os.W_OK):
        parser.error(f"--out {options.out} cannot be written; name a file in a writable folder.")
    return {
        "date": datetime.date.today().isoformat(),
        "quick": options.quick,
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "numpy", "scipy")},
        "renyi_lab": renyi_lab.__version__,
        "load_at_start": round(psutil.getloadavg()[0], 2),
    }


def processor() -> str:
    """The processor's model name, or its architecture where the system does not say more."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()


def finish(path: Path, circumstances: dict[str, Any], targets: Sequence[Target] = (), **results: Any) -> None:
    """Print the targets and the circumstances; write everything to ``path`` and to its copy in the course, if any."""
    circumstances = {**circumstances, "load_at_end": round(psutil.getloadavg()[0], 2)}
    checked = [{**asdict(target), "met": target.met} for target in targets]
    if checked:
        show("Targets", checked)
    content = {"circumstances": circumstances, "targets": checked, **results}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
    copy = COURSE_RESULTS / path.name
    if path.resolve().parent == RESULTS and copy.exists():
        copy.write_text(text, encoding="utf-8")
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in circumstances.items()))
    print(f"JSON: {path}; `python docs/generate.py` renders it.")


def show(title: str, records: Sequence[dict[str, Any]]) -> None:
    """Print records as a table, one column for each key of the first one."""
    table = Table(title=f"\n{title}", title_justify="left")
    for name, value in records[0].items():
        table.add_column(name.replace("_", " "), justify="left" if isinstance(value, str) else "right")
    for record in records:
        table.add_row(*(_cell(value) for value in record.values()))
    Console(width=_WIDTH, highlight=False, markup=False).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return " / ".join(_cell(part) for part in value.values())
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)
