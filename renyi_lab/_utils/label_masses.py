"""Masses of batches that hold labels: what a mean over labels divides by, and the message that asks for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

_IGNORED = -100  # torch's default for ignore_index, and that of collators for language models
_TARGET_NAMES = ("labels", "label", "targets", "target", "y")


def named_targets(content: Any) -> dict[str, Any]:
    """What a mapping or an object calls labels or targets, by the expression for it, such as ``'batch["labels"]'``."""
    if isinstance(content, (Tensor, tuple, list)):
        return {}
    if isinstance(content, Mapping):
        return {f'batch["{name}"]': content[name] for name in _TARGET_NAMES if content.get(name) is not None}
    found = {name: getattr(content, name, None) for name in _TARGET_NAMES}
    return {f"batch.{name}": value for name, value in found.items() if value is not None}


def label_masses(content: Any) -> dict[str, Callable[[Any], float]]:
    """Numbers of labels of a batch that are not -100, by the expression for them.

    The second is that of a language model, which predicts each label from those before it.
    """
    is_pair = isinstance(content, (tuple, list)) and len(content) == 2
    found = {"batch[1]": content[1]} if is_pair else named_targets(content)
    for where, labels in found.items():
        if isinstance(labels, Tensor) and labels.ndim and not (labels.is_floating_point() or labels.is_complex()):
            masses: dict[str, Callable[[Any], float]] = {}
            masses[f"({where} != {_IGNORED}).sum()"] = functools.partial(_count, where=where, shifted=False)
            if labels.ndim == 2 and not is_pair:
                masses[f"({where}[:, 1:] != {_IGNORED}).sum()"] = functools.partial(_count, where=where, shifted=True)
            return masses
    return {}


def _count(content: Any, where: str, shifted: bool) -> float:
    labels = content[1] if isinstance(content, (tuple, list)) else named_targets(content)[where]
    return float(((labels[:, 1:] if shifted else labels) != _IGNORED).sum())


def mass_fix(content: Any, fitting: str = "") -> str:
    """How to say what a loss averages over, as a sentence without its full stop.

    Args:
        content: A batch, from which the example is made.
        fitting: The expression for a mass that agrees with the loss, where there is one.
    """
    if fitting:
        return f"Pass batch_mass=lambda batch: {fitting}, which the loss agrees with"
    masses = list(label_masses(content)) or ["(batch[1] != -100).sum()"]
    shifted = f" ({masses[1]} where the model shifts them by one, as language models do)" if masses[1:] else ""
    return (
        "Pass batch_mass=, a function from a batch to the denominator of its mean loss, such as "
        f"batch_mass=lambda batch: {masses[0]} for a mean over labels{shifted}, or pass all data as one batch"
    )
