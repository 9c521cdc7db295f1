"""Where the course's notebooks lie."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def course_directory() -> Path:
    """Return the folder with the course: the one shipped in the package, or a checkout's ``notebooks/``.

    Raises:
        FileNotFoundError: neither is there, which means an incomplete installation.
    """
    shipped = _PACKAGE / "course"
    checkout = _PACKAGE.parent / "notebooks"
    if shipped.is_dir():
        return shipped
    # site-packages may hold a stranger's folder of that name: only a checkout has pyproject.toml beside it
    if checkout.is_dir() and (_PACKAGE.parent / "pyproject.toml").is_file():
        return checkout
    raise FileNotFoundError(
        f"The course is neither in {shipped} nor in {checkout}. "
        "Install the package again (pip install --force-reinstall --no-deps renyi-lab) or run from a full checkout."
    )
