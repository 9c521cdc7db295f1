"""Import the package, run a notebook and make an explorer's page in a process in which sockets cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

FORBIDDEN = ("socket.", "urllib.", "http.client.", "pickle.find_class")
# asyncio's event loop, which IPython makes, wakes itself through a pair of sockets that lead nowhere else.
HARMLESS = ("socket.__new__",)


def forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook that ends everything that looks for the network, or unpickles by name."""
    if watching and event.startswith(FORBIDDEN) and event not in HARMLESS:
        raise PermissionError(f"{event} {arguments!r}")


watching = False
sys.addaudithook(forbid)


def main(notebook: Path) -> None:
    """Import, run every code cell in order, and turn an explorer into a page."""
    global watching
    import matplotlib
    import nbformat
    import torch

    matplotlib.use("agg")
    watching = True
    import renyi_lab as rl

    cells = nbformat.read(notebook, as_version=4).cells
    names: dict[str, Any] = {"display": lambda *shown: None, "__name__": "__main__"}
    for cell in cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{notebook.name}, cell {cell.id}", "exec"), names)
    eigenvalues = torch.linspace(-1, 2, 50).tolist()
    page = rl.widgets.AlphaExplorer(rl.Spectrum.from_eigenvalues(eigenvalues)).to_html()
    print("offline", "https://" not in page and "http://" not in page)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
