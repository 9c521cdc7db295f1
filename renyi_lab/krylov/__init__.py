"""Stage 2: Krylov spaces of an operator, and the two simple methods that came before them."""

from renyi_lab.krylov._baselines import TopEigenpair, hutchinson_trace, power_iteration
from renyi_lab.krylov._block_lanczos import CONVERGED, BlockTridiagonal, GaussRule, block_lanczos, gauss_rule
from renyi_lab.krylov._lanczos import Tridiagonal, lanczos, lanczos_steps

__all__ = [
    "CONVERGED",
    "BlockTridiagonal",
    "GaussRule",
    "TopEigenpair",
    "Tridiagonal",
    "block_lanczos",
    "gauss_rule",
    "hutchinson_trace",
    "lanczos",
    "lanczos_steps",
    "power_iteration",
]
