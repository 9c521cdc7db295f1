"""Griffe extension: the package's docstrings as mkdocstrings expects them."""

from __future__ import annotations

import re
from typing import Any

import griffe

CODE = re.compile(r"(?<!`)`(?P<name>[A-Za-z_]\w*)`(?!`)")


class Docstrings(griffe.Extension):
    """Name the section of doctests as Griffe does, and link `Name` in single backticks to the public object."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite every docstring once the package is loaded."""
        paths = {}
        for face in pkg.modules.values():
            if not face.name.startswith("_"):
                paths |= {name: f"{face.path}.{name}" for name in face.exports or () if _has_docstring(pkg, face, name)}
        self._rewrite(pkg, paths)

    def _rewrite(self, parent: griffe.Object, paths: dict[str, str]) -> None:
        def linked(match: re.Match[str]) -> str:
            name = match["name"]
            return f"[`{name}`][{paths[name]}]" if name in paths and name != parent.name else match[0]

        if parent.docstring:
            text = re.sub(r"^Example:$", "Examples:", parent.docstring.value, flags=re.MULTILINE)
            parent.docstring.value = CODE.sub(linked, text)
        for member in parent.members.values():
            if not member.is_alias:
                self._rewrite(member, paths)


def _has_docstring(pkg: griffe.Module, face: griffe.Module, name: Any) -> bool:
    """Whether the reference shows the object: constants without a docstring are left out."""
    member = face.members.get(str(name))  # several names assigned at once are not members
    if isinstance(member, griffe.Alias):
        try:
            member = pkg.modules_collection[member.target_path]
        except KeyError:
            return False
    return member is not None and member.docstring is not None
