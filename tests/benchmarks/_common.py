"""What the benchmarks share: the circumstances of a measurement, targets, Markdown tables, and the JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

# Two cores: what the targets were set for.
DEFAULT_THREADS = 2
_WIDE = 200  # columns; a Markdown table must not be wrapped


@dataclass(frozen=True)
class Target:
    """What a benchmark must show, and whether it does."""

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
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("build") / f"{name}.json", help="JSON file (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny settings, to see that everything runs")
    parser.add_argument("--threads", type=positive, default=DEFAULT_THREADS, help="of torch (%(default)s)")
    return parser


def prepare(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, Any]:
    """Set the number of threads, make sure that ``--out`` can be written, and note the circumstances at the start."""
    torch.set_num_threads(options.threads)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out}: {error}")
    if options.out.is_dir() or not os.access(options.out.parent, os.W_OK):
        parser.error(f"--out {options.out} cannot be written; name a file in a folder of yours.")
    return {
        "quick": options.quick,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_at_start": round(psutil.getloadavg()[0], 2),
    }


def finish(path: Path, circumstances: dict[str, Any], targets: Sequence[Target], **results: Any) -> None:
    """Print the targets and the circumstances, and write everything to ``path``."""
    circumstances = {**circumstances, "load_at_end": round(psutil.getloadavg()[0], 2)}
    if targets:
        print_table(
            "Targets",
            ["claim", "measured", "limit", "met"],
            [
                [t.claim, f"{t.value:.3g}", f"{'≥' if t.at_least else '≤'} {t.limit:g}", "yes" if t.met else "NO"]
                for t in targets
            ],
        )
    content = {
        "circumstances": circumstances,
        "targets": [{**asdict(target), "met": target.met} for target in targets],
        **results,
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in circumstances.items()))
    print(f"JSON: {path}")


def print_table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table in Markdown, legible in a terminal and ready for a README; columns of numbers to the right."""
    rows = list(rows)
    table = Table(box=MARKDOWN)
    for name, *cells in zip(header, *rows, strict=True):
        numbers = all(cell[0] in "0123456789+-–≤≥" for cell in cells)
        table.add_column(name, justify="right" if numbers else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(width=_WIDE, highlight=False, markup=False)
    console.print(f"\n{title}", soft_wrap=True)
    console.print(table)
