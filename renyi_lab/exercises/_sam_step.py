"""Checker of the step of sharpness-aware minimisation that the reader of `08_rsam.ipynb` writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from renyi_lab.exercises._feedback import Feedback, Hint, NotAttempted, answer_of, close, explain, first_hint, number_of

_RHO, _LR, _MOMENTUM = 0.7, 0.1, 0.9
_START = ((1.0, -2.0), (0.5, 1.5, -1.0))
_CURVATURES = torch.tensor([3.0, 1.0, 0.5, 2.0, 0.2], dtype=torch.float64)


def check_sam_step(function: Callable[..., Any]) -> Feedback:
    """Check ``function(params, loss_of, optimizer, rho)``: one step of sharpness-aware minimisation.

    Args:
        function: Your solution; ``params`` is a list of parameters, ``loss_of()`` computes the loss at their present
            values, ``optimizer`` is a torch optimizer that holds them. It returns the loss before the step.
    """
    feedback = first_hint(
        function,
        [_one_step, _returned_loss, _base_takes_the_step, _zero_gradient],
        "two gradients and one step, which any torch optimizer can take.",
        signature="(params, loss_of, optimizer, rho)",
    )
    return feedback.otherwise(function, _sam_step)


class _Trial:
    """A loss of two parameter tensors whose gradient is not linear, and an optimizer for them."""

    def __init__(self, start: tuple[tuple[float, ...], ...] = _START, momentum: float = 0.0) -> None:
        self.params = [torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in start]
        for param in self.params:
            param.grad = torch.ones_like(param)  # as the previous step may have left it
        self.optimizer = torch.optim.SGD(self.params, lr=_LR, momentum=momentum)
        self.num_losses = 0

    @property
    def weights(self) -> Tensor:
        return parameters_to_vector(self.params).detach().clone()

    def loss_of(self) -> Tensor:
        self.num_losses += 1
        return _loss(parameters_to_vector(self.params))

    def step(self, function: Callable[..., Any], must_move: bool = True) -> Any:
        """Let the attempt take a step, and return what it returns."""
        before, params, returned = self.weights, list(self.params), []

        def attempt() -> bool:  # without arguments: the step must change the parameters
            returned.append(function(params, self.loss_of, self.optimizer, _RHO))
            return True

        answer_of(attempt)
        if [id(param) for param in params] != [id(param) for param in self.params]:
            raise Hint("params holds other tensors now: change the values of its parameters instead.")
        if must_move and torch.equal(before, self.weights):
            if returned[0] is None or returned[0] is Ellipsis:
                raise NotAttempted
            raise Hint("the weights are unchanged: take the step with optimizer.step().")
        return returned[0]


def _one_step(function: Callable[..., Any]) -> str | None:
    trial = _Trial()
    theta = trial.weights
    trial.step(function)
    g, stale = _gradient(theta), torch.ones_like(theta)
    ascent = _RHO * g / g.norm()
    per_tensor = torch.cat([_RHO * part / part.norm() for part in g.split([len(part) for part in _START])])

    def after(perturbation: Tensor, extra: Tensor | float = 0.0) -> Tensor:
        return theta - _LR * (_gradient(theta + perturbation) + extra)

    mistakes = {
        "this is a step of plain gradient descent: use the gradient at the perturbed weights.": theta - _LR * g,
        "the weights are not restored: the step must start at the old weights.": after(ascent) + ascent,
        "the weights are only perturbed: restore them, then call optimizer.step().": theta + ascent,
        "the gradients at both points add up in .grad: clear it before the second backward().": after(ascent, g),
        "a gradient of the step before was left in .grad: clear it before backward().": after(ascent, stale),
        "gradients left in .grad add up: clear it before each backward().": after(ascent, g + stale),
        "each tensor got a norm of its own: ‖g‖ is one norm over all parameters.": after(per_tensor),
        "the perturbation must have length rho: divide g by its norm.": after(_RHO * g),
        "the perturbation is divided by ‖g‖²; divide by ‖g‖, so that its length is rho.": after(ascent / g.norm()),
        "the perturbation goes down the gradient: add it.": after(-ascent),
    }
    hint = explain(
        trial.weights,
        after(ascent),
        mistakes,
        "the new weights differ from theta − lr · (gradient at theta + rho · g/‖g‖): perturb, take the second "
        "gradient, restore the weights, and only then optimizer.step().",
    )
    if hint is None and trial.num_losses != 2:
        return f"loss_of was called {trial.num_losses} times: a step needs two losses with their gradients."
    return hint


def _returned_loss(function: Callable[..., Any]) -> str | None:
    trial = _Trial()
    theta = trial.weights
    loss, g = trial.step(function), _gradient(theta)
    if loss is None or loss is Ellipsis:
        return "the step is right; also return the loss at the old weights."
    mistakes = {
        "this is the loss at the perturbed weights; return the one before.": _loss(theta + _RHO * g / g.norm()),
        "this is the loss after the step; return the one before.": _loss(trial.weights),
    }
    return explain(number_of(loss), _loss(theta), mistakes, "return the loss at the old weights, a number.")


def _base_takes_the_step(function: Callable[..., Any]) -> str | None:
    trial, wanted = _Trial(momentum=_MOMENTUM), _Trial(momentum=_MOMENTUM)
    for _ in range(2):
        trial.step(function)
        _sam_step(wanted.params, wanted.loss_of, wanted.optimizer, _RHO)
    if close(trial.weights, wanted.weights):
        return None
    return "right for plain SGD, but its momentum is lost: let optimizer.step() change the weights."


def _zero_gradient(function: Callable[..., Any]) -> str | None:
    trial = _Trial(((0.0, 0.0), (0.0, 0.0, 0.0)))
    trial.step(function, must_move=False)
    if trial.weights.isfinite().all():
        return None
    return "where the gradient is zero, g/‖g‖ is 0/0 and every weight becomes NaN: do not perturb there."


def _loss(theta: Tensor) -> Tensor:
    return (_CURVATURES * theta.square() / 2 + theta.abs().pow(3) / 3).sum()


def _gradient(theta: Tensor) -> Tensor:
    return _CURVATURES * theta + theta.abs() * theta


def _sam_step(params: list[Tensor], loss_of: Callable[[], Tensor], optimizer: Any, rho: float) -> float:
    loss = loss_of()
    gradient = parameters_to_vector(torch.autograd.grad(loss, params))
    norm, theta = gradient.norm(), parameters_to_vector(params).detach().clone()
    if norm > 0:
        vector_to_parameters(theta + rho * gradient / norm, params)
    optimizer.zero_grad()
    loss_of().backward()
    vector_to_parameters(theta, params)
    optimizer.step()
    return loss.item()
