"""The running network of the course: stored once, loaded everywhere, trained again where the file cannot be used."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import renyi_lab as rl
from renyi_lab.course import (
    NETWORK_FILE,
    _files,
    _network,
    course_directory,
    load_network,
    load_results,
    save_network,
    student_edition,
)

LIMIT = 0.02  # gradient norm
STORED = sorted((Path(__file__).resolve().parent.parent / "notebooks" / "results").glob("*.json"))
LESSONS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("[0-9]*.ipynb"))
of_lessons = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.name)


@pytest.fixture
def retrained(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """What training again gives, without the time that it takes."""
    model = rl.models.mlp(40, 32, 32, 10, seed=7)
    monkeypatch.setattr(_network, "train_network", lambda **_: (model, []))
    return model


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(p.float(), q.float()) for p, q in pairs)


def test_the_shipped_network_fits_its_data_and_is_nearly_stationary() -> None:
    model, train_set, test_set = load_network(course_directory() / NETWORK_FILE, dtype=torch.float64)
    assert rl.evaluate(model, train_set).accuracy == 1
    assert 0.4 < rl.evaluate(model, test_set).accuracy < 0.5
    H = rl.HessianOperator(model, nn.functional.cross_entropy, train_set)
    assert H.shape == (2698, 2698)
    assert H.gradient().norm() < LIMIT


@pytest.mark.slow
def test_training_it_again_gives_such_a_network() -> None:
    model, histories = rl.course.train_network(progress=False)
    _, train_set, _ = load_network()
    assert [len(history.test_accuracy) for history in histories] == [150, 20, 20]
    assert rl.evaluate(model, train_set).accuracy == 1
    assert rl.HessianOperator(model, nn.functional.cross_entropy, train_set).gradient().norm() < LIMIT


def test_a_saved_network_is_loaded_from_the_current_folder_and_from_the_one_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = rl.models.mlp(40, 32, 32, 10, seed=3)
    monkeypatch.chdir(tmp_path)
    assert save_network(model) == Path(NETWORK_FILE)
    (tmp_path / "solutions").mkdir()
    for folder in (tmp_path, tmp_path / "solutions"):
        monkeypatch.chdir(folder)
        loaded = load_network(dtype=torch.float64)
        assert same_weights(loaded.model, model)
        assert loaded.train_set.tensors[0].dtype == torch.float64
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [NETWORK_FILE]


def test_an_intact_file_is_kept_unless_asked_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "network.npz"
    first, second = (rl.models.mlp(40, 32, 32, 10, seed=seed) for seed in (1, 2))
    save_network(first, path)
    save_network(second, path)
    assert same_weights(load_network(path).model, first)
    save_network(second, path, overwrite=True)
    assert same_weights(load_network(path).model, second)


def test_a_missing_file_is_trained_again_and_said_so(
    tmp_path: Path, retrained: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    assert same_weights(load_network(tmp_path / "none.npz").model, retrained)
    assert "none.npz was not found, so the running network is trained again" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage", ["text", "truncated", "method", "header", "recipe", "weights", "pickle", "folder", "shape"]
)
def test_a_damaged_or_old_file_is_trained_again_and_said_so(
    damage: str, tmp_path: Path, retrained: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_network(rl.models.mlp(40, 32, 32, 10), tmp_path / "network.npz")
    content = dict(np.load(path))
    if damage == "text":
        path.write_text("not a network")
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "method":  # of compression, of the last entry
        directory = path.read_bytes()
        place = directory.rindex(b"PK\x01\x02") + 10
        path.write_bytes(directory[:place] + b"\x63" + directory[place + 1 :])
    elif damage == "header":  # of an array
        path.write_bytes(path.read_bytes().replace(b"(32, 40), }", b"(32, 40,(( "))
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "pickle":
        np.savez(path, **{**content, "recipe": np.array([{"a": 1}], dtype=object)})
    else:
        changed = {
            "recipe": {"recipe": "{}"},
            "weights": {"layer1.weight": 2 * content["layer1.weight"]},
            "shape": {"layer1.weight": content["layer1.weight"][:3]},
        }[damage]
        np.savez(path, **{**content, **changed})
    assert same_weights(load_network(path).model, retrained)
    assert "damaged or was made by another version" in capsys.readouterr().out
    if damage != "folder":  # and saving replaces it
        save_network(retrained, path)
        load_network(path)
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda model, path: save_network("model", path), TypeError, "got str"),
        (lambda model, path: save_network(rl.models.mlp(4, 3), path), ValueError, "other names or shapes"),
        (lambda model, path: save_network(model, path.parent / "no" / "x.npz"), ValueError, "does not exist"),
        (lambda model, path: save_network(model, path.parent), ValueError, "is a folder"),
        (lambda model, path: save_network(model, path.parent / ("a" * 300)), OSError, "is not a file name that"),
        (lambda model, path: save_network(model, path.parent / "\ud800"), OSError, "is not a file name that"),
        (lambda model, path: load_network(3), TypeError, "path must be a string or a pathlib.Path, got int"),
        (lambda model, path: save_network(model, 3), TypeError, "path must be a string or a pathlib.Path, got int"),
        (lambda model, path: load_network(path, dtype=torch.int64), TypeError, "floating-point"),
        (lambda model, path: load_network(path, dtype="double"), TypeError, "floating-point"),
    ],
)
def test_bad_input_is_refused(call, error: type[Exception], match: str, tmp_path: Path) -> None:
    path = tmp_path / "network.npz"
    with pytest.raises(error, match=match):
        call(rl.models.mlp(40, 32, 32, 10), path)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (rl.models.mlp(40, 32, 32, 10, seed=seed) for seed in (1, 2))
    path = save_network(first, tmp_path / "network.npz")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(_network.os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        save_network(second, path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["network.npz"]
    assert same_weights(load_network(path).model, first)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = rl.models.mlp(40, 32, 32, 10)
    with torch.no_grad():
        model.layer1.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        save_network(model, tmp_path / "network.npz")


@of_lessons
def test_the_student_edition_holds_no_reference_and_no_way_to_the_solutions(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    made = student_edition(notebook)
    assert "solutions/" not in json.dumps(made)
    assert not any(cell.get("outputs") for cell in made["cells"])
    pairs = zip(notebook["cells"], made["cells"], strict=True)
    references = [cells for cells in pairs if "reference" in cells[0]["metadata"].get("tags", ())]
    for before, after in references:
        written = ast.parse("".join(before["source"]))
        assert any(isinstance(node, (ast.FunctionDef, ast.Lambda)) for node in ast.walk(written))
        (statement,) = ast.parse(after["source"]).body
        assert isinstance(statement, ast.Assign)
        assert ast.unparse(statement.value).endswith(".function")


def test_a_reference_without_a_checker_is_refused() -> None:
    cell = {"cell_type": "code", "metadata": {"tags": ["reference"]}, "source": "def f(): return 1", "outputs": []}
    with pytest.raises(ValueError, match="must call its checker"):
        student_edition({"cells": [cell]})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("## Exercises\nTry. Solved in [it](solutions/a.ipynb).\n\nGo on.", "## Exercises\nTry.\n\nGo on."),
        ("## Exercises\nThe solutions: [it](solutions/a.ipynb).", "## Exercises"),
        ("- one.\n- two, see [it](solutions/a.ipynb).\n- three.", "- one.\n- three."),
        ("1. Try. See `solutions/a.ipynb`.\n2. Again.", "1. Try.\n2. Again."),
        ("Try, e.g. first, i.e. [it](solutions/a.ipynb), here. Go on.", "Go on."),
        ("Look:\n\n```python\nopen('solutions/a')\n\nx = 1. + 2\n```\nGo on.", "Look:\n\nGo on."),
        (["Try. See sol", "utions/a.\r\n", "\r\nGo on."], "Try.\n\nGo on."),
    ],
)
def test_only_what_points_to_the_solutions_is_removed(text: str | list[str], expected: str) -> None:
    cell = {"cell_type": "markdown", "metadata": {}, "source": text}
    assert student_edition({"cells": [cell]})["cells"][0]["source"] == expected


@pytest.mark.parametrize("notebook", [{}, {"worksheets": []}, []])
def test_what_is_no_notebook_is_refused(notebook: object) -> None:
    with pytest.raises(ValueError, match="key 'cells'"):
        student_edition(notebook)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "renyi_lab"
    (package / "notebooks" / "results").mkdir(parents=True)
    monkeypatch.setattr(_files, "_PACKAGE", package)
    return package / "notebooks" / "results"


def test_results_are_read_from_the_course_and_new_in_every_call(results: Path) -> None:
    (results / "a_benchmark.json").write_text('{"rho": [0.5, "ρ"]}', encoding="utf-8")
    load_results("a_benchmark").clear()
    assert load_results("a_benchmark") == {"rho": [0.5, "ρ"]}


def test_results_of_another_name_are_refused_with_the_known_names(results: Path) -> None:
    with pytest.raises(ValueError, match=r"name='b'.*known: none"):
        load_results("b")
    (results / "a.json").write_text("{}", encoding="utf-8")
    (results.parent / "outside.json").write_text("{}", encoding="utf-8")
    for name in ("b", "", "a.json", "../outside"):
        with pytest.raises(ValueError, match="known: a"):
            load_results(name)
    with pytest.raises(TypeError, match="name must be a string such as 'base_optimizers', got int"):
        load_results(1)


@pytest.mark.parametrize("content", [b'{"half": ', b"\xff\xfe", b"[1]"])
def test_damaged_results_are_reported(results: Path, content: bytes) -> None:
    (results / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json (is damaged|holds no results).*install the package again"):
        load_results("a")


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.name)
def test_stored_results_are_those_of_the_benchmark(path: Path) -> None:
    benchmarks = Path(__file__).resolve().parent / "benchmarks" / "results"
    assert path.read_bytes() == (benchmarks / path.name).read_bytes()
