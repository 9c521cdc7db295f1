"""Location of the course's notebooks."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def course_directory() -> Path:
    """Return the folder of the course: the one in the installed package, or ``notebooks/`` of a checkout.

    Raises:
        FileNotFoundError: Neither folder exists, which means an incomplete installation.
    """
    shipped = _PACKAGE / "notebooks"
    checkout = _PACKAGE.parent / "notebooks"
    if shipped.is_dir():
        return shipped
    # site-packages may contain another package's folder of that name: only a checkout has pyproject.toml beside it
    if checkout.is_dir() and (_PACKAGE.parent / "pyproject.toml").is_file():
        return checkout
    raise FileNotFoundError(
        f"The course is neither in {shipped} nor in {checkout}. "
        "Install the package again (pip install --force-reinstall --no-deps renyi-lab) or run from a full checkout."
    )
