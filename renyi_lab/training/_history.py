"""Results of training and evaluation: curves over the epochs, and a loss with an accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.figure import check_axes, new_figure

if TYPE_CHECKING:  # pandas would slow down every import of the package
    import pandas as pd


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`.

    Args:
        loss: Mean loss over the data, or its sum for a loss that adds up.
        accuracy: Share of labels that are predicted, in [0, 1], among those that are not ignored; ``None`` where
            targets are not class labels.
        num_samples: Number of samples.
    """

    loss: float
    accuracy: float | None
    num_samples: int

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class History:
    """Result of `train`, with one entry per epoch.

    Training values are running means over the epoch's batches, each taken before its step; test values come from
    `evaluate` after the epoch. So the training loss looks a little worse than it is after the epoch. Batches are
    weighted as in `evaluate`, but what an unknown loss averages over is not checked; a loss that adds up has sums.

    Args:
        train_loss: Mean training loss.
        train_accuracy: Training accuracy in [0, 1]; empty in regression.
        test_loss: Mean test loss; empty without a test set.
        test_accuracy: Test accuracy in [0, 1]; empty without a test set and in regression.
        num_gradients: Number of forward and backward passes over one batch: two per step for sharpness-aware
            optimizers.
        seconds: Duration of the training; not compared by ``==``.
        perturbation_norm: Mean ‖ε‖ over the epoch's steps of a sharpness-aware optimizer (0 in warm-up); empty for
            others.
        lr: Learning rate of each epoch (of the first parameter group); empty without a scheduler.

    Example:
        >>> from renyi_lab import datasets, models, training
        >>> history = training.train(models.mlp(64, 10), datasets.digits()[0], epochs=2)
        >>> list(history.to_frame().columns), list(history.to_frame().index)
        (['train_loss', 'train_accuracy'], [1, 2])
    """

    train_loss: tuple[float, ...]
    train_accuracy: tuple[float, ...]
    test_loss: tuple[float, ...]
    test_accuracy: tuple[float, ...]
    num_gradients: int
    seconds: float = field(compare=False)
    perturbation_norm: tuple[float, ...] = ()
    lr: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return len(self.train_loss)

    def __repr__(self) -> str:
        # Without seconds, so that a notebook's stored output is reproducible.
        names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
        last = [f"{name.replace('_', ' ')} {getattr(self, name)[-1]:.3f}" for name in names if getattr(self, name)]
        return f"History({self.epochs} epochs, {self.num_gradients} gradients: {', '.join(last)})"

    def to_frame(self) -> pd.DataFrame:
        """One row per epoch, index ``epoch`` from 1; columns: the curves, without those that are empty."""
        import pandas as pd

        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        curves = {name: list(curve) for name, curve in values.items() if isinstance(curve, tuple) and curve}
        return pd.DataFrame(curves, index=pd.RangeIndex(1, self.epochs + 1, name="epoch"))

    def plot(self, ax: Axes | None = None) -> FigureBase:
        """Draw loss and accuracy over the epochs.

        Args:
            ax: Axes for the curves of the loss alone. Default: a new figure with both.

        Returns:
            The figure.
        """
        if ax is not None:
            self._draw(check_axes(ax), "loss")
            return ax.figure
        quantities = ("loss", "accuracy") if self.train_accuracy else ("loss",)
        figure = new_figure(4.5 * len(quantities), 3, alt=self._described(quantities))
        for axes, quantity in zip(figure.subplots(1, len(quantities), squeeze=False)[0], quantities, strict=True):
            self._draw(axes, quantity)
        return figure

    def _described(self, quantities: Sequence[str]) -> str:
        ends = [
            f"{part} {quantity} from {values[0]:.2g} to {values[-1]:.2g}"
            for quantity in quantities
            for part in ("train", "test")
            if (values := getattr(self, f"{part}_{quantity}"))
        ]
        return f"Line plots against the epoch, {len(self.train_loss)} epochs: {', '.join(ends)}."

    def _draw(self, ax: Axes, quantity: str) -> None:
        for part in ("train", "test"):
            values = getattr(self, f"{part}_{quantity}")
            if values:
                ax.plot(range(1, len(values) + 1), values, label=part)
        ax.set(xlabel="epoch", ylabel=quantity)
        ax.legend()
