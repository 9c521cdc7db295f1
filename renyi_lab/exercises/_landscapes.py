"""Checkers of `05b_landscapes.ipynb`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renyi_lab.exercises._feedback import Feedback, Hint, answer_of, close, explain, first_hint, number_of, tensor_of

_NUM_STEPS = 4
_Gradient = Callable[[Tensor], tuple[float, Tensor]]


def check_climb(function: Callable[..., Any]) -> Feedback:
    """Check ``function(loss_and_gradient, theta, start, rho, num_steps)``: projected ascent in a ball.

    Args:
        function: Your solution; returns the losses at the points that it visits, ``num_steps + 1`` of them. The first
            point is ``theta`` plus ``start`` at length ``rho``, every other one ``theta`` plus the gradient of the
            point before at length ``rho``.
    """
    feedback = first_hint(
        function,
        [_climbed],
        "the largest of these losses is a lower bound of the worst loss in the ball.",
    )
    return feedback.otherwise(function, _climb)


def _climbed(function: Callable[..., Any]) -> str | None:
    theta, start, rho = _normal(5, seed=20), _normal(5, seed=21), 0.7
    visited: list[Tensor] = []

    def recorded(weights: Tensor) -> tuple[float, Tensor]:
        visited.append(weights.detach().clone())
        return _bowl(weights)

    losses = _losses_of(answer_of(function, recorded, theta.clone(), start.clone(), rho, _NUM_STEPS))
    wanted = _climb(_bowl, theta, start, rho, _NUM_STEPS)
    if close(losses, wanted):
        return None
    if not visited:
        return "loss_and_gradient was never called."
    distances = [float((weights - theta).norm()) for weights in visited]
    if distances[0] == 0.0:
        return "the first point is theta itself; start at theta + rho * start / ‖start‖."
    if not np.allclose(distances, rho):
        far = max(distances, key=lambda distance: abs(distance - rho))
        return f"a point lies at distance {far:.3g} from theta, with rho = {rho}: scale each step to length rho."
    if len(losses) != len(wanted):
        return f"{_NUM_STEPS} steps visit {len(wanted)} points, the first one included; got {len(losses)} losses."
    if close(losses[0], wanted[0]) and losses[-1] < losses[0]:
        return "the loss falls: the gradient points uphill, so add it."
    return "at each point take its loss and gradient; the next point is theta + rho * gradient / ‖gradient‖."


def _losses_of(answer: Any) -> Any:
    try:
        values = [number_of(value) for value in answer]
    except (TypeError, ValueError, RuntimeError):
        raise Hint(f"a list of losses is expected, got {type(answer).__name__}.") from None
    return np.array(values)


def _bowl(weights: Tensor) -> tuple[float, Tensor]:
    curvatures = torch.arange(1.0, 6.0, dtype=torch.float64)
    return float((curvatures * weights.square()).sum() / 2), curvatures * weights


def _climb(loss_and_gradient: _Gradient, theta: Tensor, start: Tensor, rho: float, num_steps: int) -> list[float]:
    losses, direction = [], start
    for _ in range(num_steps + 1):
        loss, direction = loss_and_gradient(theta + rho * direction / direction.norm())
        losses.append(loss)
    return losses


def check_kink(function: Callable[[float], Any]) -> Feedback:
    """Check ``function(rho)``: the curvature whose average rise over ``[−ρ, ρ]`` equals that of the kink ``|t|``.

    Args:
        function: Your solution; takes the radius and returns one number.
    """
    return first_hint(
        function,
        [_kink_curvature],
        "one kink stands for a curvature of any size: the smaller the ball around it, the larger.",
    )


def _kink_curvature(function: Callable[..., Any]) -> str | None:
    for rho in (0.5, 0.1):
        mistakes = {
            "this makes the rises equal at the ends, t = ±ρ; compare their averages over [−ρ, ρ].": 2 / rho,
            "the parabola is ½λt², with the factor ½.": 1.5 / rho,
            "the average of t² over [−ρ, ρ] is ρ²/3, not ρ².": 1 / rho,
            "the second derivative is 0 beside the kink and does not exist at it; compare average rises instead.": 0.0,
            "inverted: the smaller the ball, the larger λ.": rho / 3,
        }
        hint = explain(
            number_of(answer_of(function, rho)), 3 / rho, mistakes, "solve ½ λ · average(t²) = average(|t|) for λ."
        )
        if hint is not None:
            return hint
    return None


def check_filter_normalized(function: Callable[[Tensor, Tensor], Any]) -> Feedback:
    """Check ``function(direction, weight)``: each filter ``direction[i]`` scaled to the length of ``weight[i]``.

    Args:
        function: Your solution; takes two linear weights, ``(out, in)``, or two convolution weights,
            ``(out, in, places)``. A filter of zeros stays zero.
    """
    feedback = first_hint(
        function,
        [_linear_filters, _zero_filters, _convolution_filters],
        "along such directions, a network and its rescaled version have the same loss curves.",
    )
    return feedback.otherwise(function, _with_lengths)


def _linear_filters(function: Callable[..., Any]) -> str | None:
    d, W = _normal(3, 4, seed=6), _normal(3, 4, seed=7) * torch.tensor([[1.0], [5.0], [0.2]], dtype=torch.float64)
    rows, columns = {"dim": 1, "keepdim": True}, {"dim": 0, "keepdim": True}
    mistakes = {
        "the tensor as a whole has the right length; each row, direction[i], needs its own.": d * W.norm() / d.norm(),
        "each row has length 1; give it the length of the weight's row.": d / d.norm(**rows),
        "rows are multiplied by the lengths of the weight's rows; also divide by their own.": d * W.norm(**rows),
        "columns were normalized; a filter is a row, direction[i].": d * W.norm(**columns) / d.norm(**columns),
    }
    answer = tensor_of(answer_of(function, d.clone(), W.clone()), d.shape)
    return explain(
        answer, _with_lengths(d, W), mistakes, "row i needs the direction of direction[i], the length of weight[i]."
    )


def _zero_filters(function: Callable[..., Any]) -> str | None:
    d, W = _normal(3, 4, seed=6), _normal(3, 4, seed=7)
    d[1] = 0.0
    answer = tensor_of(answer_of(function, d.clone(), W.clone()), d.shape)
    return explain(answer, _with_lengths(d, W), {}, "a filter of zeros should stay zero, not become NaN: avoid 0/0.")


def _convolution_filters(function: Callable[..., Any]) -> str | None:
    d, W = _normal(3, 2, 4, seed=8), _normal(3, 2, 4, seed=9)
    answer = _for_convolution(function, d.shape, d.clone(), W.clone())
    return explain(
        answer, _with_lengths(d, W), {}, "a linear weight is right. A convolution filter is all of weight[i] (flatten)."
    )


def check_ball_factors(doubled: Any, one_steep: Any, all_equal: Any) -> Feedback:
    """Predict rises of a quadratic loss at its minimum, over a ball of 98 dimensions.

    Args:
        doubled: Factor by which the worst rise grows when the radius is doubled.
        one_steep: Worst rise divided by average rise, when one eigenvalue is 1 and the others are 0.
        all_equal: The same ratio when all 98 eigenvalues are 1.
    """
    slope = {"doubled: at a minimum the slope is zero, so the rise is ½ρ²λ, not proportional to ρ.": 2.0}
    sphere = {
        "one_steep: this is the average over the sphere; over the ball it is ½ρ² tr H/(n + 2).": 98.0,
        "one_steep: inverted; divide the worst by the average.": 0.01,
    }
    one = {"all_equal: on the sphere, yes. But the average is over the ball, including its inside.": 1.0}
    return first_hint(
        (doubled, one_steep, all_equal),
        [
            lambda given: explain(
                number_of(given[0]), 4.0, slope, "doubled: the worst rise is ½ρ²λ_max; substitute 2ρ."
            ),
            lambda given: explain(
                number_of(given[1]),
                100.0,
                sphere,
                "one_steep: divide ½ρ²λ_max by ½ρ² tr H/(n + 2); n = 98 and tr H = 1.",
            ),
            lambda given: explain(number_of(given[2]), 100 / 98, one, "all_equal: the same formula, with tr H = 98."),
        ],
        "all three. The ratio is (n + 2) λ_max / tr H: large where few of many directions are steep.",
    )


def _for_convolution(function: Callable[..., Any], shape: torch.Size, *arguments: Any) -> Tensor:
    try:
        return tensor_of(answer_of(function, *arguments), shape)
    except Hint as found:
        raise Hint(f"a linear weight is right. For a convolution weight of shape {tuple(shape)}: {found}") from None


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _with_lengths(direction: Tensor, weight: Tensor) -> Tensor:
    rows = [d * w.norm() / d.norm() if d.any() else d for d, w in zip(direction, weight, strict=True)]
    return torch.stack(rows)
