"""Explorers: controls → pure computation → picture, from plain results, in JupyterLab or without a kernel."""

from renyi_lab.widgets.alpha import AlphaExplorer
from renyi_lab.widgets.base import Explorer
from renyi_lab.widgets.differences import DifferenceExplorer
from renyi_lab.widgets.lanczos import LanczosExplorer
from renyi_lab.widgets.perturbation import PerturbationExplorer
from renyi_lab.widgets.radius import RadiusExplorer
from renyi_lab.widgets.reparametrization import ReparametrizationExplorer
from renyi_lab.widgets.spectrum import SpectrumExplorer

__all__ = [
    "AlphaExplorer",
    "DifferenceExplorer",
    "Explorer",
    "LanczosExplorer",
    "PerturbationExplorer",
    "RadiusExplorer",
    "ReparametrizationExplorer",
    "SpectrumExplorer",
]
