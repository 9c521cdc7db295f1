"""Packages that only some functions need: the extras of ``renyi-lab``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def optional_import(package: str, *, extra: str, needed_by: str) -> Iterator[None]:
    """Turn a failed import inside the block into an error that says what to install.

    Args:
        package: Name of the package on the index, such as ``"scikit-learn"``.
        extra: Extra of ``renyi-lab`` that includes the package.
        needed_by: The function or command that needs it, as a user calls it.

    Raises:
        ModuleNotFoundError: A module imported in the block, or one that it imports itself, is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{needed_by} needs {package} ({error.msg}). Install it with: pip install 'renyi-lab[{extra}]'",
            name=error.name,
        ) from error
