"""Records of a long benchmark, one JSON object per line, so that an interrupted one resumes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


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
