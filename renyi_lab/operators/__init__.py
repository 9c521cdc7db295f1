"""Stage 1: curvature matrices of a model's loss as operators, accessed through products with vectors."""

from renyi_lab.operators._adapters import as_operator
from renyi_lab.operators._ascent import NUM_STEPS, Ascent, ascend
from renyi_lab.operators._base import DENSE_LIMIT, LinearOperator
from renyi_lab.operators._cost import Cost, format_bytes
from renyi_lab.operators._ggn import GGNOperator
from renyi_lab.operators._graph_memory import free_bytes, saved_bytes
from renyi_lab.operators._hessian import HessianOperator, hvp
from renyi_lab.operators._kept_graphs import KeptGraphOperator
from renyi_lab.operators._loss_surface import LossSurface, check_operator, random_subset, without_groups
from renyi_lab.operators._matrix import MatrixOperator
from renyi_lab.operators._model import ModelOperator
from renyi_lab.operators._reference import dense_hessian, matrix_with_spectrum

__all__ = [
    "DENSE_LIMIT",
    "NUM_STEPS",
    "Ascent",
    "Cost",
    "GGNOperator",
    "HessianOperator",
    "KeptGraphOperator",
    "LinearOperator",
    "LossSurface",
    "MatrixOperator",
    "ModelOperator",
    "as_operator",
    "ascend",
    "check_operator",
    "dense_hessian",
    "format_bytes",
    "free_bytes",
    "hvp",
    "matrix_with_spectrum",
    "random_subset",
    "saved_bytes",
    "without_groups",
]
