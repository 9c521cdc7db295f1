"""Networks with Gaussian weight noise: the Gibbs classifiers of the PAC-Bayes bounds."""

from renyi_lab.posterior._gaussian import GaussianPosterior
from renyi_lab.posterior._gibbs import GibbsError, gibbs_error
from renyi_lab.posterior._low_rank import LowRankCurvature, leading_curvature

__all__ = [
    "GaussianPosterior",
    "GibbsError",
    "LowRankCurvature",
    "gibbs_error",
    "leading_curvature",
]
