"""Clean executed notebooks before a commit: `python tests/tools/clean_notebooks.py NOTEBOOK...`.

Outputs are kept. Metadata that differs between runs or machines is removed, and so is the widget state, which is large
and which GitHub refuses to render if it is incomplete.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
TIMING = ("execution", "ExecuteTime")


def clean(notebook: NotebookNode) -> NotebookNode:
    """Return a copy without widget state, timings and version numbers.

    Widget views are numbered in order, and text that a kernel sent in pieces is joined.
    """
    cleaned = copy.deepcopy(notebook)
    cleaned.metadata.pop("widgets", None)
    cleaned.metadata["kernelspec"] = NotebookNode(KERNELSPEC)
    cleaned.metadata["language_info"] = nbformat.from_dict(LANGUAGE_INFO)
    numbers: dict[str, int] = {}
    for cell in cleaned.cells:
        for key in TIMING:
            cell.metadata.pop(key, None)
        if "outputs" in cell:
            cell.outputs = _joined(cell.outputs)
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(WIDGET_VIEW)
            if view is not None:  # random in every run, and without the state it refers to nothing
                view["model_id"] = f"{numbers.setdefault(view['model_id'], len(numbers) + 1):032x}"
    return cleaned


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    made: list[NotebookNode] = []
    for output in outputs:
        if made and output.output_type == "stream" and output.get("name") == made[-1].get("name"):
            made[-1].text += output.text
        else:
            made.append(output)
    return made


def main(paths: list[str]) -> None:
    """Clean the named files in place."""
    for path in map(Path, paths):
        notebook = nbformat.read(path, as_version=4)
        nbformat.write(clean(notebook), path)


if __name__ == "__main__":
    main(sys.argv[1:])
