"""Explorers: interactive figures of spectra, perturbations, bounds, studies and optimizers, also without a kernel."""

from renyi_lab.widgets._alpha import AlphaExplorer
from renyi_lab.widgets._base import Explorer
from renyi_lab.widgets._bound import BoundExplorer
from renyi_lab.widgets._differences import DifferenceExplorer
from renyi_lab.widgets._lanczos import LanczosExplorer
from renyi_lab.widgets._landscape import LandscapeExplorer
from renyi_lab.widgets._perturbation import PerturbationExplorer
from renyi_lab.widgets._radius import RadiusExplorer
from renyi_lab.widgets._reparametrization import ReparametrizationExplorer
from renyi_lab.widgets._rsam import RSAMExplorer
from renyi_lab.widgets._spectrum import SpectrumExplorer
from renyi_lab.widgets._study import StudyExplorer
from renyi_lab.widgets._tuning import TuningExplorer

__all__ = [
    "AlphaExplorer",
    "BoundExplorer",
    "DifferenceExplorer",
    "Explorer",
    "LanczosExplorer",
    "LandscapeExplorer",
    "PerturbationExplorer",
    "RSAMExplorer",
    "RadiusExplorer",
    "ReparametrizationExplorer",
    "SpectrumExplorer",
    "StudyExplorer",
    "TuningExplorer",
]
