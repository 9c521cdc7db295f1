"""Records of a long benchmark, one JSON object per line, so that an interrupted one resumes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import joblib

from renyi_lab._utils.progress import progress_bar


def one_by_one(runs: list[Any]) -> list[list[Any]]:
    """Each run is computed by itself."""
    return [[run] for run in runs]


class Records:
    """The file of records: read once, then only appended to.

    Args:
        path: The file; it need not exist.
        run_type: Frozen dataclass of the runs; equal runs have equal results.
        compute: Function from some runs to their results, called in other processes if there are several jobs.
        required: Keys that every result has.
        cut: Function that cuts runs into those that are computed together.
    """

    def __init__(
        self,
        path: Path,
        run_type: type[Any],
        compute: Callable[[list[Any]], list[dict[str, Any]]],
        *required: str,
        cut: Callable[[list[Any]], list[list[Any]]] = one_by_one,
    ) -> None:
        self.path, self.function, self.cut = path, compute, cut
        self.known = read_records(path, run_type, *required)

    def compute(self, runs: list[Any], jobs: int, title: str) -> None:
        """Compute the runs that are not in the file yet; each is written as it finishes."""
        missing = [run for run in dict.fromkeys(runs) if run not in self.known]
        if not missing:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        finished = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(
            joblib.delayed(_with_runs)(self.function, chunk) for chunk in self.cut(missing)
        )
        with progress_bar(len(missing), title) as bar, self.path.open("a", encoding="utf-8") as file:
            for chunk, results in finished:
                for run, result in zip(chunk, results, strict=True):
                    file.write(json.dumps({"run": asdict(run), "result": result}) + "\n")
                    self.known[run] = result
                file.flush()
                bar.update(len(chunk))


def _with_runs(compute: Callable[[list[Any]], list[dict[str, Any]]], runs: list[Any]) -> tuple[list[Any], list[Any]]:
    return runs, compute(runs)


def read_records(path: Path, run_type: type[Any], *required: str) -> dict[Any, dict[str, Any]]:
    """The results in the file by their run; lines that are no records are reported, an unfinished one is ended.

    Args:
        path: The file; it need not exist.
        run_type: Class of the runs, made from the keyword arguments in a record's ``run``.
        required: Keys that every result has.
    """
    known = {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            entry = json.loads(line)
            run, result = run_type(**entry["run"]), entry["result"]
            for key in required:
                result[key]
        except (ValueError, KeyError, TypeError) as error:
            print(f"{path}, line {number} is not a record of this benchmark; ignored: {error!r}", file=sys.stderr)
            continue
        known[run] = result
    if text and not text.endswith("\n"):
        with path.open("a", encoding="utf-8") as file:  # a line that was being written when the run was stopped
            file.write("\n")
    return known
