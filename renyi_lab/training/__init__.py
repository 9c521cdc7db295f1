"""Training and evaluation of small networks, reproducible and without side effects."""

from renyi_lab.training._divergence import DivergenceError
from renyi_lab.training._evaluate import evaluate
from renyi_lab.training._history import Evaluation, History
from renyi_lab.training._train import train

__all__ = [
    "DivergenceError",
    "Evaluation",
    "History",
    "evaluate",
    "train",
]
