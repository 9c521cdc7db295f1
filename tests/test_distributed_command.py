"""The command that computes a spectrum on several processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import renyi_lab as rl
from renyi_lab.distributed import shard

FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = torch.randn(31, 5, dtype=torch.float64)
    return model, nn.CrossEntropyLoss(), (x, torch.arange(31) % 3)

def fails():
    raise OSError("no such data")
"""


def run(folder, *arguments):
    (folder / "own.py").write_text(FACTORY)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [*torchrun, "-m", "renyi_lab.distributed", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_two_processes_write_the_spectrum_of_one(tmp_path):
    done = run(tmp_path, "own:make", "--out=found", "--num-matvecs=40", "--alpha=1", "--device=cpu", "--sharpness")
    assert done.returncode == 0, done.stderr
    assert "num_samples=31" in done.stdout
    assert "2 processes" in done.stdout
    space = {}
    exec(FACTORY, space)
    spectrum = rl.Spectrum.load(tmp_path / "found" / "spectrum.npz")
    expected = rl.estimate_spectrum(rl.HessianOperator(*space["make"]()), num_matvecs=40)
    assert spectrum.renyi_entropy(1).value == pytest.approx(expected.renyi_entropy(1).value, rel=1e-9)
    assert pd.read_csv(tmp_path / "found" / "report.csv")["alpha"].tolist() == [1]
    assert "trace" in (tmp_path / "found" / "sharpness.csv").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed")
def test_an_error_of_the_factory_is_one_line(tmp_path):
    done = run(tmp_path, "own:fails", "--out=found", "--device=cpu")
    assert done.returncode != 0
    assert "OSError: no such data" in done.stderr
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--alpha=-1"], "each of alpha must lie in"),
        (["--sharpness", "--method=finite_difference"], "--sharpness needs --method double_backward"),
        (["--out=own.py"], "FileExistsError"),
    ],
)
def test_bad_options_are_refused_before_the_long_computation(tmp_path, arguments, message):
    (tmp_path / "own.py").write_text(FACTORY)
    command = [sys.executable, "-m", "renyi_lab.distributed", "own:make", "--out=found", "--device=cpu", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert message in done.stderr
    assert "products" not in done.stderr


def test_help_names_the_factory():
    command = [sys.executable, "-m", "renyi_lab.distributed", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "factory" in shown.lower()
    assert "--basis" in shown


def test_shards_are_consecutive_and_cover_all_samples():
    x, y = torch.arange(7.0), torch.arange(7)
    parts = [shard((x, y), rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([part[0] for part in parts]), x)
    assert [len(part[1]) for part in parts] == [3, 2, 2]
    subsets = [shard(TensorDataset(x, y), rank, 3) for rank in range(3)]
    assert [int(label) for part in subsets for _, label in part] == list(range(7))
    assert [len(shard((x[:1], y[:1]), rank, 2)[0]) for rank in range(2)] == [1, 0]


@pytest.mark.parametrize(
    ("data", "rank", "message"),
    [
        ((torch.ones(2), torch.ones(3)), 0, "equally many samples"),
        (torch.utils.data.DataLoader(TensorDataset(torch.ones(2))), 0, "pass the data set"),
        ((torch.ones(2), torch.ones(2)), 2, "rank must be"),
        (nn.Linear(1, 1), 0, "pair of tensors"),
    ],
)
def test_what_cannot_be_shared(data, rank, message):
    with pytest.raises((ValueError, TypeError), match=message):
        shard(data, rank, 2)
