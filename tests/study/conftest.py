"""One finished study for all tests of its records and tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_study import GRID, small_study

from renyi_lab.study import Study


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    path = tmp_path_factory.mktemp("study") / "records.jsonl"
    return small_study(GRID, path=path), path
