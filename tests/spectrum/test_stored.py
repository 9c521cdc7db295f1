"""Spectra as files: what comes back is what was written, and a file that is not one is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from renyi_lab.operators import matrix_with_spectrum
from renyi_lab.spectrum import QuadratureRule, Sampling, Spectrum, estimate_spectrum, exact_spectrum
from renyi_lab.spectrum._stored import read_stored, write_stored

ORDERS = (0, 0.5, 1, 1.5, 2, float("inf"))


def estimated(repeated: bool = False, num_matvecs: int = 100) -> Spectrum:
    bulk = np.repeat(np.linspace(0, 1, 20), 19) if repeated else np.linspace(0, 1, 380)
    values = np.concatenate([bulk, np.geomspace(2, 100, 20)])
    return estimate_spectrum(matrix_with_spectrum(values), num_matvecs=num_matvecs)


SPECTRA = {
    "given": lambda: Spectrum.from_eigenvalues([4.0, -2.0, 0.0, 1.0, 1.0], num_matvecs=7),
    "computed": lambda: exact_spectrum(torch.diag(torch.tensor([2.0, 1.0, 1e-9]))),
    "estimated": estimated,
    "with repeated eigenvalues": lambda: estimated(repeated=True),
    "from few products": lambda: estimated(num_matvecs=3),
}


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal, arrays bit by bit."""
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if dataclasses.is_dataclass(first):
        fields = [field.name for field in dataclasses.fields(first)]
        return type(first) is type(second) and all(same(getattr(first, f), getattr(second, f)) for f in fields)
    return bool(first == second)


@pytest.fixture(params=SPECTRA)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Spectrum, Spectrum]:
    spectrum = SPECTRA[request.param]()
    spectrum.save(tmp_path / "a.npz")
    return spectrum, Spectrum.load(tmp_path / "a.npz")


def test_all_that_is_stored_comes_back(pair: tuple[Spectrum, Spectrum]):
    spectrum, loaded = pair
    assert same(spectrum, loaded)
    assert repr(spectrum) == repr(loaded)
    assert spectrum.has_repeated == loaded.has_repeated
    assert same(spectrum.last_rule, loaded.last_rule)


def test_estimates_errors_warnings_and_reports_are_the_same(pair: tuple[Spectrum, Spectrum]):
    results = []
    for spectrum in pair:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            entropies = [spectrum.renyi_entropy(alpha) for alpha in ORDERS]
        results.append((entropies, [str(w.message) for w in caught], spectrum.trace, spectrum.trace_of(np.square)))
    assert results[0] == results[1]
    pd.testing.assert_frame_equal(pair[0].report(), pair[1].report(), check_exact=True)


def test_a_file_of_the_same_name_is_replaced(tmp_path: Path):
    path = tmp_path / "a.NPZ"
    for values in ([1.0], [1.0, 2.0]):
        Spectrum.from_eigenvalues(values).save(str(path))
    assert Spectrum.load(str(path)).dim == 2
    assert os.listdir(tmp_path) == ["a.NPZ"]


# --- fields of other versions -----------------------------------------------------------------------------------


def changed(path: Path, **entries: Any) -> None:
    with np.load(path) as file:
        description = json.loads(str(file["renyi_lab"][()]))
        arrays = {key: file[key] for key in file.files if key != "renyi_lab"}
    description.update(entries.pop("description", {}))
    description["value"]["fields"].update(entries.pop("fields", {}))
    np.savez(path, renyi_lab=np.array(json.dumps(description)), **{**arrays, **entries})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    estimated().save(path)
    return path


@pytest.mark.parametrize("change", [{"description": {"format": 2, "version": "9.0"}}, {"fields": {"later": 3}}])
def test_a_later_format_asks_for_an_update(path: Path, change: dict[str, Any]):
    changed(path, **change)
    with pytest.raises(ValueError, match=r"written by a later version of renyi_lab .* than this one .*; update"):
        Spectrum.load(path)


@dataclasses.dataclass(frozen=True, eq=False)
class Later(QuadratureRule):
    rules: tuple[Any, ...] = ()


def test_a_new_field_needs_no_new_code_and_may_be_missing_in_a_file(tmp_path: Path):
    rule = QuadratureRule(np.ones(2), np.ones(2), 2)
    later = Later(np.ones(3), np.ones(3), 3, (rule, (np.arange(2.0), 1)))
    write_stored(tmp_path / "a.npz", later)
    assert same(read_stored(tmp_path / "a.npz", (Later, QuadratureRule)), later)
    write_stored(tmp_path / "b.npz", rule)
    text = str(np.load(tmp_path / "b.npz")["renyi_lab"]).replace("QuadratureRule", "Later")
    np.savez(tmp_path / "b.npz", renyi_lab=text, nodes=rule.nodes, weights=rule.weights)
    assert read_stored(tmp_path / "b.npz", (Later,)).rules == ()


def test_each_kind_of_field_is_stored():
    """Whoever adds a field of another kind, such as a dictionary, must extend the module."""
    known = {"FloatArray", "int", "float", "bool", "Sampling | None", "QuadratureRule", "tuple[QuadratureRule, ...]"}
    for kind in (Spectrum, Sampling, QuadratureRule):
        assert {str(field.type) for field in dataclasses.fields(kind)} <= known


# --- files that are none ----------------------------------------------------------------------------------------


def test_a_damaged_file_is_never_read_as_another_spectrum(path: Path):
    content, spectrum = path.read_bytes(), Spectrum.load(path)
    for place in range(0, len(content), 211):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        with contextlib.suppress(ValueError):  # where a byte does not matter, such as one of a date, it is read
            assert same(Spectrum.load(path), spectrum)


@pytest.mark.parametrize("length", [0, 3, 100, -1, -30, -5000])
def test_a_truncated_file_is_refused(path: Path, length: int):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"path is damaged, incomplete or not a file of Spectrum.save: '.*a.npz'"):
        Spectrum.load(path)


def test_foreign_files_are_refused(tmp_path: Path):
    for name, save in {"a.npz": np.savez, "b.npz": np.save}.items():
        for value in (np.ones(3), np.array([{"a": 1}], dtype=object)):
            with (tmp_path / name).open("wb") as file:
                save(file, value)
            with pytest.raises(ValueError, match=rf"path is not a file of Spectrum.save: '.*{name}'"):
                Spectrum.load(tmp_path / name)
    write_stored(tmp_path / "rule.npz", QuadratureRule(np.ones(2), np.ones(2), 2))
    with pytest.raises(ValueError, match=r"path is not a file of Spectrum.save"):
        Spectrum.load(tmp_path / "rule.npz")


def test_wrong_values_in_a_file_are_refused(path: Path):
    changed(path, nodes=np.full(3, np.nan))
    with pytest.raises(ValueError, match=r"path is damaged"):
        Spectrum.load(path)


# --- paths ------------------------------------------------------------------------------------------------------


def test_paths_that_cannot_be_read_are_named(tmp_path: Path):
    spectrum = Spectrum.from_eigenvalues([1.0])
    with pytest.raises(FileNotFoundError, match=r"path does not exist: '.*none.npz'; the current folder is"):
        Spectrum.load(tmp_path / "none.npz")
    spectrum.save(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match=r"path does not exist: '.*a'; there is '.*a.npz'"):
        Spectrum.load(tmp_path / "a")
    with pytest.raises(IsADirectoryError, match=r"path is a folder: .*add the name of a file, such as spectrum.npz"):
        Spectrum.load(tmp_path)
    for name in ("a\0.npz", "a" * 300, "\ud800"):
        with pytest.raises(FileNotFoundError, match=r"path does not exist: '.*'; the current folder is"):
            Spectrum.load(name)
    with pytest.raises(TypeError, match=r"path must be a file name, such as spectrum.npz, got 3 of type int"):
        Spectrum.load(3)  # type: ignore[arg-type]


def test_paths_that_cannot_be_written_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spectrum = Spectrum.from_eigenvalues([1.0])
    for name in ("a", "a.txt"):
        with pytest.raises(ValueError, match=rf"path must end in .npz, got '.*{name}'; use '{name}.npz'"):
            spectrum.save(tmp_path / name)
    with pytest.raises(IsADirectoryError, match=r"path is a folder"):
        spectrum.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"path needs an existing folder"):
        spectrum.save(tmp_path / "none" / "a.npz")
    with pytest.raises(TypeError, match=r"path must be a file name"):
        spectrum.save(3)  # type: ignore[arg-type]
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=r"path may not be written: '.*a.npz'"):
        spectrum.save(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch):
    before = path.read_bytes()

    def full(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"path could not be written: '.*a.npz' \(No space left"):
        Spectrum.from_eigenvalues([1.0]).save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["a.npz"]


def with_entry(path: Path, name: str, value: Any, *, compressed: bool = False) -> None:
    with np.load(path) as entries:
        arrays = {key: entries[key] for key in entries.files}
    (np.savez_compressed if compressed else np.savez)(path, **(arrays | {name: value}))


@pytest.mark.parametrize("name", ["polynomials", "fit", "spread", "shrink", "covariance"])
@pytest.mark.parametrize("value", [np.array(["a"]), np.ones(2), np.ones(0), np.ones(380, complex), np.ones((7, 3))])
def test_what_errors_are_computed_from_is_checked_when_it_is_read(name: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "spectrum.npz"
    estimated().save(path)
    with_entry(path, f"sampling.{name}", value)
    with pytest.raises(ValueError, match="damaged"):
        Spectrum.load(path)


def test_a_sampling_belongs_to_the_nodes_of_its_spectrum() -> None:
    spectrum = estimated()
    with pytest.raises(ValueError, match="sampling is of"):
        dataclasses.replace(spectrum, nodes=[1.0], weights=[400.0])
    with pytest.raises(TypeError, match="sampling must be a Sampling"):
        dataclasses.replace(spectrum, sampling="exact")


def test_compressed_entries_which_may_be_of_any_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "spectrum.npz"
    Spectrum.from_eigenvalues([1.0, 2.0]).save(path)
    with_entry(path, "more", np.zeros(10**6), compressed=True)
    assert path.stat().st_size < 10**5
    with pytest.raises(ValueError, match="damaged"):
        Spectrum.load(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_devices_and_pipes_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(OSError, match="not an ordinary file"):
            Spectrum.load(path)
