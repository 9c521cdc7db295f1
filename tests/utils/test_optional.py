"""Without the extras the core works, and a call that needs an extra reports the command that installs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from renyi_lab import cli, datasets, study
from renyi_lab._utils.optional import optional_import

EXTRAS = ("joblib", "mnist1d", "rich", "sklearn", "typer")
CORE = f"""
import importlib, pkgutil, sys
for name in {EXTRAS}:
    sys.modules[name] = None  # as if it were not installed

import torch
import renyi_lab as rl

for name in rl.__all__:
    getattr(rl, name)
for module in pkgutil.iter_modules(rl.__path__, "renyi_lab."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

x = torch.linspace(-1, 1, 64)[:, None]
data = torch.utils.data.TensorDataset(x, (x[:, 0] > 0).long())
model = rl.models.mlp(1, 8, 2)
rl.train(model, data, epochs=1, optimizer=rl.RSAM)
operator = rl.HessianOperator(model, torch.nn.functional.cross_entropy, data)
spectrum = rl.estimate_spectrum(operator, num_matvecs=30)
spectrum.plot()
rl.widgets.AlphaExplorer(spectrum)
rl.datasets.xor()
rl.study.Study.standard().to_frame()
"""


def hide(patch: pytest.MonkeyPatch, package: str) -> None:
    """Make a package appear not to be installed."""
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        patch.setitem(sys.modules, name, None)


def run_study() -> None:
    data = torch.zeros(4, 1), torch.tensor([0, 1, 0, 1])
    study.run_study({"seed": 0}, data=(data, data))


@pytest.mark.slow
def test_the_core_works_without_the_extras() -> None:
    result = subprocess.run([sys.executable, "-c", CORE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("package", "call", "message"),
    [
        (
            "mnist1d",
            lambda: datasets.mnist1d(num_samples=10, seed=123),
            r"renyi_lab.datasets.mnist1d needs mnist1d \(.*mnist1d.*\). .*: pip install 'renyi-lab\[data\]'$",
        ),
        (
            "sklearn",
            datasets.digits,
            r"renyi_lab.datasets.digits needs scikit-learn \(.*sklearn.*\). .*: pip install 'renyi-lab\[data\]'$",
        ),
        (
            "joblib",
            run_study,
            r"renyi_lab.study.run_study needs joblib \(.*joblib.*\). .*: pip install 'renyi-lab\[study\]'$",
        ),
    ],
)
def test_a_missing_package_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, package: str, call: Callable[[], object], message: str
) -> None:
    hide(monkeypatch, package)
    with pytest.raises(ModuleNotFoundError, match=message):
        call()


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_the_command_without_its_extra_exits_with_one_line(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    hide(monkeypatch, package)
    monkeypatch.delitem(sys.modules, "renyi_lab.cli._app", raising=False)
    with pytest.raises(SystemExit) as exit_of_command:
        cli.main()
    message = exit_of_command.value.code
    assert isinstance(message, str), "the interpreter prints it on stderr and exits with status 1"
    assert "needs typer and rich" in message
    assert message.endswith("pip install 'renyi-lab[cli]'")
    assert "\n" not in message


def test_another_error_of_an_optional_package_is_not_hidden() -> None:
    with pytest.raises(ImportError, match="broken build"), optional_import("it", extra="data", needed_by="this"):
        raise ImportError("broken build")
