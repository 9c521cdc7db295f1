"""Explorers: controls → pure computation → picture, from plain results, in JupyterLab or without a kernel."""

from renyi_lab.widgets.alpha import AlphaExplorer
from renyi_lab.widgets.base import Explorer

__all__ = ["AlphaExplorer", "Explorer"]
