"""What ``renyi-lab check`` looks at: the versions, device, kernel and files that the course needs."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from dataclasses import dataclass

from renyi_lab.course import course_directory


@dataclass(frozen=True)
class CheckResult:
    """One line of the check: a part, what is needed, what was found, and how to fix it where they differ."""

    part: str
    needed: str
    found: str
    ok: bool
    fix: str = ""


def check_installation() -> list[CheckResult]:
    """Check Python, torch and its device, the widgets, JupyterLab, the kernel that it starts, and the course."""
    python = sys.version.split()[0]
    return [
        CheckResult("Python", "3.10 or newer", python, sys.version_info >= (3, 10), "install Python 3.10 or newer"),
        _torch(),
        _second_derivative(),
        _package("ipywidgets", (8, 1), "pip install 'ipywidgets>=8.1'"),
        _package("jupyterlab", (4, 2), "pip install 'renyi-lab[lab]'"),
        _widget_extension(),
        _kernel(),
        _course(),
    ]


def _torch() -> CheckResult:
    import torch

    from renyi_lab._utils.device import default_device

    found = f"{torch.__version__}, device {default_device()}"
    return CheckResult(
        "torch", "2.6 or newer", found, _numbers(torch.__version__) >= (2, 6), "pip install 'torch>=2.6'"
    )


def _second_derivative() -> CheckResult:
    import torch

    from renyi_lab._utils.device import default_device
    from renyi_lab.operators import hvp

    part, needed = "second derivatives", "[6.0, 12.0]"
    try:
        x = torch.tensor([1.0, 2.0], device=default_device(), requires_grad=True)
        product = hvp((x**3).sum(), [x], torch.ones(2, device=x.device)).tolist()
    except RuntimeError as error:
        return CheckResult(part, needed, str(error).splitlines()[0], False, "reinstall torch for this device")
    return CheckResult(part, needed, f"Hessian of Σx³ times 1: {product}", product == [6.0, 12.0], "reinstall torch")


def _package(name: str, minimum: tuple[int, int], fix: str) -> CheckResult:
    version = _version(name)
    needed = f"{minimum[0]}.{minimum[1]} or newer"
    if version is None:
        return CheckResult(name, needed, "not installed", False, fix)
    return CheckResult(name, needed, version, _numbers(version) >= minimum, fix)


def _widget_extension() -> CheckResult:
    """jupyterlab_widgets, the part in the browser, numbers its major versions five behind ipywidgets."""
    front, back = _version("jupyterlab_widgets"), _version("ipywidgets")
    major = _numbers(back)[0] - 5 if back else 3
    return CheckResult(
        "widgets in JupyterLab",
        f"{major}.x",
        front or "not installed",
        back is not None and front is not None and _numbers(front)[0] == major,
        "pip install -U jupyterlab_widgets ipywidgets",
    )


def _kernel() -> CheckResult:
    part, needed = "kernel python3", "this Python"
    fix = f"{sys.executable} -m ipykernel install --sys-prefix --name python3"
    try:
        from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
    except ImportError:
        return CheckResult(part, needed, "jupyter_client not installed", False, "pip install 'renyi-lab[lab]'")
    try:
        command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    except (NoSuchKernel, OSError, json.JSONDecodeError, KeyError, IndexError):
        return CheckResult(part, needed, "not found", False, fix)
    return CheckResult(part, needed, command, command in (sys.executable, "python", "python3"), fix)


def _course() -> CheckResult:
    part, needed = "course", "its notebooks"
    try:
        folder = course_directory()
    except FileNotFoundError as error:
        return CheckResult(part, needed, "not found", False, str(error))
    lessons, solutions = (len(list(folder.glob(pattern))) for pattern in ("*.ipynb", "solutions/*.ipynb"))
    found = f"{lessons} notebooks, solutions to {solutions}"
    return CheckResult(part, needed, found, lessons > 0, "install renyi-lab again, or run from a full checkout")


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version: enough to compare with a minimum."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
