"""Whether the pieces a reader needs are there and fit together."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckResult:
    """One line of the check: what was looked at, what was found, and how to mend it if it is not right."""

    part: str
    found: str
    ok: bool
    mend: str = ""


def check_installation() -> list[CheckResult]:
    """Look at Python, torch and its device, the widgets, JupyterLab and the kernel it would start."""
    python = sys.version.split()[0]
    return [
        CheckResult("Python", python, sys.version_info >= (3, 10), "install Python 3.10 or newer"),
        _torch(),
        _second_derivative(),
        _package("ipywidgets", (8, 0), "pip install 'ipywidgets>=8'"),
        _package("jupyterlab", (4, 0), "pip install 'renyi-lab[lab]'"),
        _widget_extension(),
        _kernel(),
    ]


def _torch() -> CheckResult:
    import torch

    from renyi_lab._device import default_device

    return CheckResult("torch", f"{torch.__version__}, device {default_device()}", True)


def _second_derivative() -> CheckResult:
    import torch

    from renyi_lab._device import default_device
    from renyi_lab.hessian import hvp

    try:
        x = torch.tensor([1.0, 2.0], device=default_device(), requires_grad=True)
        product = hvp((x**3).sum(), [x], torch.ones(2, device=x.device)).tolist()
    except RuntimeError as error:
        return CheckResult("second derivatives", str(error).splitlines()[0], False, "reinstall torch for this device")
    return CheckResult(
        "second derivatives", f"Hessian of Σx³ times 1: {product}", product == [6.0, 12.0], "reinstall torch"
    )


def _package(name: str, minimum: tuple[int, int], mend: str) -> CheckResult:
    version = _version(name)
    if version is None:
        return CheckResult(name, "not installed", False, mend)
    found = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return CheckResult(name, version, found >= minimum, mend)


def _widget_extension() -> CheckResult:
    """The browser's half of ipywidgets must have the same major version as the kernel's half."""
    front, back = _version("jupyterlab_widgets"), _version("ipywidgets")
    fits = front is not None and back is not None and int(front.split(".")[0]) == int(back.split(".")[0]) - 5
    return CheckResult(
        "widgets in JupyterLab",
        front or "not installed",
        fits,
        "pip install -U jupyterlab_widgets ipywidgets, in one go",
    )


def _kernel() -> CheckResult:
    part, mend = "kernel python3", f"{sys.executable} -m ipykernel install --sys-prefix --name python3"
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        return CheckResult(part, "jupyter_client not installed", False, "pip install 'renyi-lab[lab]'")
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except (NoSuchKernel, OSError, json.JSONDecodeError, KeyError, IndexError):
        return CheckResult(part, "not found", False, mend)
    return CheckResult(part, command, command in (sys.executable, "python", "python3"), mend)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
