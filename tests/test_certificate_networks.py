"""The stored networks of notebook 06: intact, of the stated quality, and clear errors where the file is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import renyi_lab as rl
from renyi_lab.course import CERTIFICATE_FILE, course_directory, load_certificate_networks, save_certificate_networks

NAMES = ("whole", "prior", "moved")


def made(**changes: nn.Module) -> dict[str, nn.Module]:
    return {name: rl.models.cnn1d(seed=seed) for seed, name in enumerate(NAMES)} | changes


def test_the_shipped_networks_have_learned_what_they_should() -> None:
    networks = load_certificate_networks(course_directory() / CERTIFICATE_FILE)
    x, y = networks.train_set.tensors
    assert rl.evaluate(networks.start, networks.test_set).accuracy < 0.3
    assert rl.evaluate(networks.whole, networks.train_set).accuracy == 1
    assert rl.evaluate(networks.prior, (x[:3000], y[:3000])).accuracy > 0.99
    for name in NAMES:
        assert rl.evaluate(getattr(networks, name), networks.test_set).accuracy > 0.93
    moved, prior = (nn.utils.parameters_to_vector(net.parameters()) for net in (networks.moved, networks.prior))
    assert 0 < (moved - prior).norm() < 0.5


def test_saved_networks_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = made()
    assert save_certificate_networks(networks, tmp_path / CERTIFICATE_FILE) == tmp_path / CERTIFICATE_FILE
    (tmp_path / "solutions").mkdir()
    for folder in (tmp_path, tmp_path / "solutions"):
        monkeypatch.chdir(folder)
        loaded = load_certificate_networks()
        for name in NAMES:
            pairs = zip(getattr(loaded, name).parameters(), networks[name].parameters(), strict=True)
            assert all(torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("damage", [b"", b"not an archive"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(damage)
    with pytest.raises(ValueError, match=r"a\.npz is damaged or was made by another version"):
        load_certificate_networks(tmp_path / "a.npz")


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    path = save_certificate_networks(made(), tmp_path / "a.npz")
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    arrays["prior.linear.bias"] = arrays["prior.linear.bias"] + 1
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="damaged"):
        load_certificate_networks(path)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda path: load_certificate_networks(path / "no.npz"), FileNotFoundError, "no.npz was not found"),
        (lambda path: load_certificate_networks(3), TypeError, "path must be a string"),
        (lambda path: save_certificate_networks({}, path / "a.npz"), ValueError, "must have the names whole"),
        (
            lambda path: save_certificate_networks(made(prior=rl.models.mlp(40, 10)), path / "a.npz"),
            ValueError,
            "every network must be a cnn1d",
        ),
    ],
)
def test_messages(tmp_path: Path, call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(tmp_path)
