"""Stage 2: Lanczos runs (one deep, many shallow, in blocks), and two baselines: power iteration, Hutchinson's trace."""

from renyi_lab.krylov._baselines import TopEigenpair, hutchinson_trace, power_iteration
from renyi_lab.krylov._basis import Basis, Storage, Subspace
from renyi_lab.krylov._block_lanczos import CONVERGED, BlockTridiagonal, GaussRule, block_lanczos, gauss_rule
from renyi_lab.krylov._jacobi import JacobiMatrix, jacobi_matrix
from renyi_lab.krylov._lanczos import Tridiagonal, check_reorthogonalize, lanczos, lanczos_steps
from renyi_lab.krylov._shallow import ShallowProbes, shallow_probes

__all__ = [
    "CONVERGED",
    "Basis",
    "BlockTridiagonal",
    "GaussRule",
    "JacobiMatrix",
    "ShallowProbes",
    "Storage",
    "Subspace",
    "TopEigenpair",
    "Tridiagonal",
    "block_lanczos",
    "check_reorthogonalize",
    "gauss_rule",
    "hutchinson_trace",
    "jacobi_matrix",
    "lanczos",
    "lanczos_steps",
    "power_iteration",
    "shallow_probes",
]
