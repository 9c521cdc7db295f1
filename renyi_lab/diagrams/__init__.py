"""Diagrams of ideas, one visual language: every function returns a figure with an alternative text, ``figure.alt``."""

from renyi_lab.diagrams._course_map import PATHS, course_map
from renyi_lab.diagrams._deflation import deflation
from renyi_lab.diagrams._gauss_rule import gauss_rule
from renyi_lab.diagrams._krylov import krylov
from renyi_lab.diagrams._pipeline import pipeline
from renyi_lab.diagrams._rescaling import rescaling
from renyi_lab.diagrams._two_readings import two_readings

__all__ = ["PATHS", "course_map", "deflation", "gauss_rule", "krylov", "pipeline", "rescaling", "two_readings"]
