"""What training and evaluation return: curves over the epochs, and a loss with an accuracy."""

from __future__ import annotations

from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from renyi_lab._utils.figure import new_figure


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, accuracy in [0, 1] (``None`` where targets are no class labels) and the number of samples."""

    loss: float
    accuracy: float | None
    num_samples: int


@dataclass(frozen=True)
class History:
    """What `train` saw, one entry an epoch; accuracies are empty in regression, test values without a test set.

    Training values are running means over the epoch's batches, each taken before its step; test values come from
    `evaluate` after the epoch. So at equal skill the training loss looks a little worse than it is.
    """

    train_loss: tuple[float, ...]
    train_accuracy: tuple[float, ...]
    test_loss: tuple[float, ...]
    test_accuracy: tuple[float, ...]
    num_gradients: int
    """Forward and backward passes over one batch: two a step for sharpness-aware optimizers."""
    seconds: float = field(compare=False)
    perturbation_norm: tuple[float, ...] = ()
    """Mean ‖ε‖ over the epoch's steps, of a sharpness-aware optimizer (0 in warm-up); empty for others."""

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return len(self.train_loss)

    def __repr__(self) -> str:
        # No seconds: a notebook's stored output has to come out the same again.
        names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        last = [f"{name.replace('_', ' ')} {getattr(self, name)[-1]:.3f}" for name in names if getattr(self, name)]
        return f"History({self.epochs} epochs, {self.num_gradients} gradients: {', '.join(last)})"

    def plot(self, ax: Axes | None = None) -> FigureBase:
        """Curves of loss and accuracy over the epochs, in a figure of its own, or those of the loss alone in ``ax``."""
        if ax is not None:
            self._draw(ax, "loss")
            return ax.figure
        quantities = ("loss", "accuracy") if self.train_accuracy else ("loss",)
        figure = new_figure(4.5 * len(quantities), 3)
        for axes, quantity in zip(figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True):
            self._draw(axes, quantity)
        return figure

    def _draw(self, ax: Axes, quantity: str) -> None:
        for part in ("train", "test"):
            values = getattr(self, f"{part}_{quantity}")
            if values:
                ax.plot(range(1, len(values) + 1), values, label=part)
        ax.set(xlabel="epoch", ylabel=quantity)
        ax.legend()
