"""What a spectrum of your own model can be trusted for, and a report to hand on."""

from renyi_lab.checks._checkup import checkup
from renyi_lab.checks._finding import Finding
from renyi_lab.checks._result import Checkup

__all__ = ["Checkup", "Finding", "checkup"]
