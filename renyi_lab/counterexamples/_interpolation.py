"""Networks of `two_layer` at interpolation: how to get there from nearby, and how often signs are right."""

from __future__ import annotations

import copy
from typing import Any

import torch

from renyi_lab._utils.threads import one_thread
from renyi_lab._utils.validation import check_finite
from renyi_lab.counterexamples._one_sam import Weights
from renyi_lab.counterexamples._pieces import check_network, gram, samples_for
from renyi_lab.models import TwoLayer

_MOST_CORRECTIONS = 50  # quadratic convergence: about five are needed near a solution
_SINGULAR = 1e-12  # relative size of eigenvalues that are rounding, as from equal samples


@torch.no_grad()
@one_thread()
def to_interpolation(model: TwoLayer, data: Any) -> TwoLayer:
    r"""A copy of the network, moved a little so that its outputs are equal to the targets.

    By Gauss–Newton steps of least length, ``−Jᵀ(JJᵀ)⁻¹(f − y)`` with the gradients of the outputs in the rows of ``J``,
    halved where they would not reduce the loss. A training that stops near interpolation, or hovers around it as SAM
    does, can then be looked at with `gram_spectrum`.

    Args:
        model: A network of `two_layer`, best in double precision.
        data: Samples with targets ±1, distinct.

    Raises:
        TypeError: Another kind of model or data.
        ValueError: No interpolation was reached, such as with fewer parameters than samples; data that do not fit,
            frozen parameters, or weights that are not finite.
    """
    weights = Weights(check_network(model), data, "data")
    products = weights.x @ weights.x.T
    target = 100 * torch.finfo(weights.x.dtype).eps
    for _ in range(_MOST_CORRECTIONS):
        at = weights.pieces()
        errors = at.outputs - weights.y
        before = float(errors.abs().max())
        if before < target:
            return weights.write(copy.deepcopy(model))
        system = gram(at, products).double().cpu(), errors.double().cpu()[:, None]
        solution = torch.linalg.lstsq(*system, rcond=_SINGULAR, driver="gelsd").solution.to(errors)
        first, second = (solution * at.of_preactivations).T @ weights.x, (solution * at.of_second).sum(0)
        start, size = (weights.first, weights.second), 1.0
        while size > 1e-3:
            weights.first, weights.second = start[0] - size * first, start[1] - size * second
            after = weights.pieces().outputs - weights.y
            if float(after.norm()) < float(errors.norm()):
                break
            size /= 2
        else:
            break
    raise ValueError(
        f"no interpolation was reached: outputs differ from targets by up to {before:.2g}. Train the model closer to "
        "it first, with more hidden units than samples, or in double precision."
    )


@torch.no_grad()
def sign_accuracy(model: TwoLayer, data: Any) -> float:
    """Share of samples whose output has the target's sign; an output 0 counts one half, as a guess would.

    Args:
        model: A network of `two_layer`.
        data: Samples with targets ±1.

    Raises:
        TypeError: Another kind of model or data.
        ValueError: Data that do not fit, or outputs that are not finite.
    """
    x, y = samples_for(check_network(model), "data", data)
    outputs = model(x)
    check_finite("model's output", outputs, "training diverged.")
    return float(((outputs.sign() == y).double() + 0.5 * (outputs == 0).double()).mean())
