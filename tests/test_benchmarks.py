"""The benchmarks of the spectrum engine run, and what they call the truth is true."""

from __future__ import annotations

import importlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import renyi_lab as rl

FOLDER = Path(__file__).resolve().parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def benchmarks_importable() -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def hvp() -> ModuleType:
    return importlib.import_module("hvp")


@pytest.fixture
def entropy_error() -> ModuleType:
    return importlib.import_module("entropy_error")


@pytest.fixture
def dense() -> ModuleType:
    return importlib.import_module("_dense")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run(module: ModuleType, out: Path, *options: str) -> dict[str, Any]:
    module.main(["--quick", "--threads", "1", "--out", str(out), *options])
    return json.loads(out.read_text(encoding="utf-8"))


def test_products_are_timed_after_they_were_found_right(
    hvp: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(hvp, tmp_path / "new folder" / "hvp.json")
    methods = {(record["network"], record["method"]) for record in result["products"]}
    assert {("mlp 40-10-10", "renyi_lab"), ("cnn1d", "renyi_lab"), ("cnn1d", "curvlinops")} <= methods
    for record in result["products"]:
        assert record["relative_error"] < 1e-5
        assert record["gradients"] == pytest.approx(record["milliseconds"] / record["gradient_milliseconds"])
        assert record["milliseconds"] > 0
    (estimate,) = result["estimates"]
    assert estimate["ratio"] == pytest.approx(estimate["estimate_seconds"] / estimate["products_seconds"])
    assert estimate["parameters"] == 520
    (memory,) = result["memory"]
    assert memory["base_mb"] > 50 > abs(memory["growth_mb"])
    assert result["circumstances"]["threads"] == 1
    printed = capsys.readouterr().out
    assert "| mlp 40-10-10 (520, 80)" in printed
    assert max(map(len, printed.splitlines())) <= 200, "a row that is wrapped is no longer Markdown"


def test_nobody_is_timed_on_a_wrong_product(hvp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    right = hvp.CONTENDERS["renyi_lab"]
    wrong = replace(right, make=lambda case: lambda v: 1.01 * right.make(case)(v))
    monkeypatch.setattr(hvp, "CONTENDERS", {"off by a percent": wrong})
    with pytest.raises(SystemExit, match=r"wrong by more than .*'off by a percent': 0\.0(1|09)"):
        hvp.measure_products(hvp.QUICK.product_cases[0], hvp.QUICK)


def test_a_peer_that_cannot_be_imported_is_left_out(hvp: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(case: Any) -> None:
        raise ImportError("not here")

    own = hvp.CONTENDERS["renyi_lab"]
    monkeypatch.setattr(hvp, "CONTENDERS", {"renyi_lab": own, "peer": replace(own, make=absent)})
    records = hvp.measure_products(hvp.QUICK.product_cases[0], hvp.QUICK)
    assert [record["method"] for record in records] == ["renyi_lab"]


def test_errors_are_measured_against_the_dense_spectrum(entropy_error: ModuleType, tmp_path: Path, cache: Path) -> None:
    result = run(entropy_error, tmp_path / "errors.json", "--cache", str(cache), "--seeds", "2")
    network, other = entropy_error.QUICK_NETWORKS
    spectrum = rl.exact_spectrum(network.operator())
    records = result["errors"]
    assert {(r["network"], r["alpha"]) for r in records} == {
        (name, alpha) for name in (network.name, other.name) for alpha in (0.5, 1, 1.5, 2)
    }
    for record in records:
        if record["network"] == network.name:
            assert record["entropy"] == pytest.approx(float(spectrum.renyi_entropy(record["alpha"])), abs=1e-4)
        assert abs(record["bias"]) <= record["rmse"] * (1 + 1e-9) < 1
    own = [record for record in records if record["method"] == "renyi_lab"]
    assert {record["products"] for record in own} == set(entropy_error.QUICK_BUDGETS)
    assert max(record["rmse"] for record in own if record["products"] == 96 and record["alpha"] >= 1) < 0.15
    authors = [record for record in records if record["method"] == "authors' setting"]
    assert {record["products"] for record in authors} == {1500}


def test_a_second_run_takes_the_hessian_from_the_cache(
    entropy_error: ModuleType, dense: ModuleType, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = entropy_error.QUICK_NETWORKS[0]
    first = dense.solved(network, cache)
    monkeypatch.setattr(dense.Network, "operator", lambda self: pytest.fail("computed again"))
    second = dense.solved(network, cache)
    assert torch.equal(first.matrix, second.matrix)
    assert np.array_equal(first.eigenvalues, second.eigenvalues)
    assert not list(cache.glob("*.partial"))


@pytest.mark.parametrize("damage", ["truncated", "foreign", "another network", "altered eigenvalue", "altered matrix"])
def test_a_cache_file_that_is_damaged_or_foreign_is_named_and_left_alone(
    damage: str, entropy_error: ModuleType, dense: ModuleType, cache: Path, tmp_path: Path
) -> None:
    network, other = entropy_error.QUICK_NETWORKS
    dense.solved(network, cache)
    (original,) = cache.glob("hessian-mlp-*.npz")
    path = tmp_path / original.name
    with np.load(original) as file:
        content = dict(file)
    if damage == "truncated":
        path.write_bytes(original.read_bytes()[:100_000])
    elif damage == "foreign":
        path.write_text("my notes", encoding="utf-8")
    elif damage == "another network":
        dense.solved(other, cache)
        shutil.copy(next(cache.glob("hessian-cnn1d-*.npz")), path)
    else:
        content["matrix" if damage == "altered matrix" else "eigenvalues"].flat[-1] += 1
        np.savez(path, **content)
    before = path.read_bytes()
    with pytest.raises(SystemExit, match=rf"{path.name} .*left alone"):
        entropy_error.main(["--quick", "--out", str(tmp_path / "out.json"), "--cache", str(tmp_path)])
    assert path.read_bytes() == before
    assert not (tmp_path / "out.json").exists()


def test_quadrature_is_exact_where_every_eigenvector_is_in_the_probe(entropy_error: ModuleType) -> None:
    # Signs have the same share of each eigenvector of a diagonal matrix, and n steps find every eigenvalue.
    eigenvalues = torch.linspace(-1, 4, 12, dtype=torch.float64)
    spectrum = rl.Spectrum.from_eigenvalues(eigenvalues)
    ((depth, values, errors),) = entropy_error.plain_quadrature(torch.diag(eigenvalues), 3, (12,), 2)
    assert depth == 12
    assert values.shape == errors.shape == (2, 4)
    expected = [float(spectrum.renyi_entropy(alpha)) for alpha in (0.5, 1, 1.5, 2)]
    assert np.abs(values - expected).max() < 1e-9
    assert errors.max() < 1e-9


def test_the_jackknife_gives_the_spread_over_probes(entropy_error: ModuleType) -> None:
    matrix = rl.matrix_with_spectrum(torch.linspace(0.1, 4, 60, dtype=torch.float64), seed=0)
    ((_, values, errors),) = entropy_error.plain_quadrature(matrix, 8, (30,), 40)
    assert np.median(errors, axis=0) == pytest.approx(values.std(axis=0), rel=0.4)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--threads", "0"], "must be at least 1, got 0"),
        (["--rounds", "-3"], "must be at least 1, got -3"),
        (["--out", str(FOLDER)], "cannot be written; name a file"),
        (["--out", str(FOLDER / "hvp.py" / "a.json")], "hvp.py"),
    ],
)
def test_wrong_options_are_refused_before_the_work_starts(
    options: list[str], complaint: str, hvp: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        hvp.main(["--quick", *options])
    assert complaint in capsys.readouterr().err


def test_the_summary_counts_errors_within_two_standard_errors(entropy_error: ModuleType) -> None:
    errors, standard_errors = np.array([3.0, -4.0, 0.0, 1.0]), np.array([1.0, 2.0, 1.0, 0.4])
    assert entropy_error.summary(errors, standard_errors) == {
        "rmse": math.sqrt(26 / 4),
        "bias": 0.0,
        "coverage": 0.5,
        "standard_error_over_rmse": 1.0 / math.sqrt(26 / 4),
    }
    assert entropy_error.summary(errors, None)["coverage"] is None
