"""The correlation study: train a grid of networks, measure each, and correlate with the generalization gap.

Does a measure of sharpness rank networks as their generalization gaps do? `run_study` trains and measures, `Study`
holds the records and computes Kendall's τ, `Study.standard` loads a study that ships with the package, and `sign_table`
says which measures keep the sign of their τ over families of networks and data sets.
"""

from renyi_lab.study._correlation import Tau, granulated_tau, kendall_tau
from renyi_lab.study._correlations import ALPHAS
from renyi_lab.study._frame import FrameRecord
from renyi_lab.study._grid import AXES, Setting
from renyi_lab.study._measurement import Measurement
from renyi_lab.study._measures import ALPHA_GRID, standard_measure
from renyi_lab.study._records import Record
from renyi_lab.study._run import run_study
from renyi_lab.study._selection import NullDistribution, SplitHalf
from renyi_lab.study._signs import sign_table, tau_by_family
from renyi_lab.study._standard import DATA_SETS, QUICK_GRID, STANDARD_GRID, standard_data
from renyi_lab.study._study import MIN_ACCURACY, Study

__all__ = [
    "ALPHAS",
    "ALPHA_GRID",
    "AXES",
    "DATA_SETS",
    "MIN_ACCURACY",
    "QUICK_GRID",
    "STANDARD_GRID",
    "FrameRecord",
    "Measurement",
    "NullDistribution",
    "Record",
    "Setting",
    "SplitHalf",
    "Study",
    "Tau",
    "granulated_tau",
    "kendall_tau",
    "run_study",
    "sign_table",
    "standard_data",
    "standard_measure",
    "tau_by_family",
]
