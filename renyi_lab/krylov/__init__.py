"""Stage 2: Lanczos and block Lanczos, and two baselines: power iteration and Hutchinson's trace estimator."""

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
