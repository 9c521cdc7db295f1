"""Diagrams of ideas, one visual language: every function returns a figure with an alternative text, ``figure.alt``."""

from renyi_lab.diagrams._deflation import deflation
from renyi_lab.diagrams._gauss_rule import gauss_rule
from renyi_lab.diagrams._krylov import krylov
from renyi_lab.diagrams._pipeline import pipeline

__all__ = ["deflation", "gauss_rule", "krylov", "pipeline"]
