"""Training and evaluation of small networks, reproducible and without side effects."""

from renyi_lab.training._history import Evaluation, History
from renyi_lab.training._train import evaluate, train

__all__ = [
    "Evaluation",
    "History",
    "evaluate",
    "train",
]
