"""A spectrum as a file: arrays in an NPZ file, which NumPy alone can read, and a description of how they are joined.

The entry ``renyi_lab`` of the file holds JSON: the version of the format, and the tree of fields. An array stands there
as the name of its own entry, such as ``sampling.polynomials``. Fields that a class gets later are stored too, and a
file without them is read with their defaults. Nothing is pickled, so a file cannot run code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from renyi_lab._utils.typing import FloatArray
from renyi_lab._utils.whole_file import as_path, whole_file, writable
from renyi_lab._version import __version__

FORMAT, DESCRIPTION, SUFFIX = 1, "renyi_lab", ".npz"
_EXAMPLE = "spectrum.npz"


class _NewerError(ValueError):
    """The file was written by a later version."""


def write_stored(path: str | os.PathLike[str], value: Any) -> None:
    """Write a dataclass of arrays, numbers, tuples and other such dataclasses, as a whole or not at all.

    Args:
        path: Name of the file, which ends in ``.npz``.
        value: The dataclass.

    Raises:
        ValueError: ``path`` does not end in ``.npz``.
        OSError: The file cannot be written.
    """
    target = writable(path, _EXAMPLE)
    if target.suffix.lower() != SUFFIX:
        raise ValueError(f"path must end in {SUFFIX}, got {str(target)!r}; use {target.name + SUFFIX!r}.")
    arrays: dict[str, FloatArray] = {}
    tree = _encoded(value, "", arrays)
    text = json.dumps({"format": FORMAT, "version": __version__, "value": tree})
    try:
        with whole_file(target) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **{DESCRIPTION: np.array(text)}, **arrays)
    except OSError as error:  # such as a full disk
        raise OSError(f"path could not be written: {str(target)!r} ({error.strerror}); nothing was changed.") from error


def read_stored(path: str | os.PathLike[str], kinds: Iterable[type]) -> Any:
    """Read what `write_stored` has written.

    Args:
        path: Name of the file.
        kinds: The dataclasses that may occur; the first is that of the whole.

    Raises:
        OSError: There is no such file, or it may not be read.
        ValueError: The file is damaged, of another kind, or written by a later version.
    """
    file = as_path(path, _EXAMPLE)
    name, (first, *others) = str(path), kinds
    _check_exists(file)
    try:
        arrays = _arrays(file)
        if DESCRIPTION not in arrays:
            raise _foreign(name, first)
        description = json.loads(str(arrays[DESCRIPTION][()]))
        if description["format"] > FORMAT:
            raise _NewerError
        value = _decoded(description["value"], arrays, {kind.__name__: kind for kind in (first, *others)})
    except _NewerError:
        raise ValueError(
            f"path was written by a later version of renyi_lab ({description.get('version')}) than this one "
            f"({__version__}): {name!r}; update renyi_lab."
        ) from None
    except _ForeignError as error:
        raise ValueError(str(error)) from None
    except OSError as error:
        raise type(error)(f"path cannot be read: {name!r} ({error.strerror or error}).") from error
    except Exception as error:  # zipfile, zlib, NumPy and json have errors of many kinds for damaged files
        raise ValueError(
            f"path is damaged, incomplete or not a file of {first.__name__}.save: {name!r}; save it again."
        ) from error
    if type(value) is not first:
        raise ValueError(str(_foreign(name, first)))
    return value


class _ForeignError(ValueError):
    """The file was not written by this module."""


def _foreign(name: str, kind: type) -> _ForeignError:
    return _ForeignError(f"path is not a file of {kind.__name__}.save: {name!r}; pass one that it has written.")


def _check_exists(path: Path) -> None:
    if os.path.isdir(path):  # Path.is_dir raises at a long name before Python 3.14
        raise IsADirectoryError(f"path is a folder: {str(path)!r}; add the name of a file, such as {_EXAMPLE}.")
    if os.path.isfile(path):
        return
    if os.path.exists(path):  # a device or a pipe may never end
        raise OSError(f"path is not an ordinary file: {str(path)!r}; pass one that was written.")
    other = path.with_name(path.name + SUFFIX)
    hint = f"there is {str(other)!r}" if os.path.isfile(other) else f"the current folder is {str(Path.cwd())!r}"
    raise FileNotFoundError(f"path does not exist: {str(path)!r}; {hint}.")


def _arrays(path: Path) -> dict[str, FloatArray]:
    """All entries of the file, whose checksums are right."""
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            return {}
    with zipfile.ZipFile(path) as archive:
        # Entries are stored as they are: more bytes than the file has are compressed ones, perhaps of any size.
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("entries larger than the file")
        if archive.testzip() is not None:
            raise zipfile.BadZipFile("wrong checksum")
    with np.load(path, allow_pickle=False) as entries:
        if DESCRIPTION not in entries.files:
            return {}  # of others, whose entries may be pickled
        return {key: entries[key] for key in entries.files}


def _encoded(value: Any, name: str, arrays: dict[str, FloatArray]) -> Any:
    """``value`` for JSON, its arrays put into ``arrays`` under names that begin with ``name``."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"array": name}
    if isinstance(value, tuple):
        return {"tuple": [_encoded(entry, f"{name}.{place}", arrays) for place, entry in enumerate(value)]}
    if dataclasses.is_dataclass(value):
        fields = {
            field.name: _encoded(getattr(value, field.name), f"{name}.{field.name}".lstrip("."), arrays)
            for field in dataclasses.fields(value)
        }
        return {"class": type(value).__name__, "fields": fields}
    return value.item() if isinstance(value, np.generic) else value


def _decoded(tree: Any, arrays: dict[str, FloatArray], kinds: dict[str, type]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        return arrays[tree["array"]]
    if "tuple" in tree:
        return tuple(_decoded(entry, arrays, kinds) for entry in tree["tuple"])
    kind = kinds.get(tree["class"])
    if kind is None or not set(tree["fields"]) <= {field.name for field in dataclasses.fields(kind)}:
        raise _NewerError
    return kind(**{name: _decoded(entry, arrays, kinds) for name, entry in tree["fields"].items()})
