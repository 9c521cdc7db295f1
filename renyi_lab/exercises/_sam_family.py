"""Checkers of `08b_sam_family.ipynb`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from renyi_lab.exercises._feedback import (
    Feedback,
    Hint,
    NotAttempted,
    answer_of,
    close,
    explain,
    first_hint,
    number_of,
    tensor_of,
)

_RHO, _LR, _ALPHA, _DECAY = 0.5, 0.1, 0.2, 0.5
_OTHER_RHO, _OTHER_ALPHA = 0.3, 0.05


def check_sam_over_base(function: Callable[[list[Tensor], Callable[[], Tensor], Optimizer, float], Any]) -> Feedback:
    """Check ``function(params, closure, base, rho)``: one SAM step whose second half is a step of any optimizer.

    Args:
        function: Your solution; ``closure()`` clears the gradients, computes them and returns the loss, ``base`` is an
            optimizer of ``params``. It changes the parameters and returns the loss at the weights before the step.
    """
    feedback = first_hint(
        function,
        [_sgd_step, _adamw_steps],
        "the base optimizer sees one gradient per step, that at θ + ε, and steps from θ.",
        signature="(params, closure, base, rho)",
    )
    return feedback.otherwise(function, _sam_over_base)


def check_sagm_gradient(function: Callable[[Callable[[Tensor], Tensor], Tensor, float, float], Any]) -> Feedback:
    """Check ``function(gradient, theta, rho, alpha)``: the direction of a step of SAGM.

    Args:
        function: Your solution; ``gradient(theta)`` is ``∇L`` at a vector of weights.
    """
    feedback = first_hint(
        function,
        [_sagm_direction],
        "with α = 0 it is the mean of the plain gradient and SAM's.",
        signature="(gradient, theta, rho, alpha)",
    )
    return feedback.otherwise(function, _sagm_gradient)


class _Problem:
    """Two parameters of different shape, a smooth loss, and a closure that counts its calls."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        shapes = ((3,), (2, 2))
        self.params = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
        self.calls = 0

    def closure(self) -> Tensor:
        self.calls += 1
        if self.calls > 100:
            raise Hint("closure is called more than a hundred times; a SAM step needs it twice.")
        for param in self.params:
            param.grad = None
        loss = sum((param**4 / 4 + param.sin()).sum() for param in self.params)
        assert isinstance(loss, Tensor)
        loss.backward()
        return loss

    def weights(self) -> Tensor:
        return torch.cat([param.detach().flatten() for param in self.params])

    def run(self, function: Callable[..., Any], base: Optimizer, num_steps: int = 1, rho: float = _RHO) -> float:
        """The last returned loss; raises `Hint` if the attempt does not compute two gradients in each step."""
        loss = float("nan")
        for _ in range(num_steps):
            before = self.calls
            try:
                answer = answer_of(lambda: function(self.params, self.closure, base, rho))
            except NotAttempted:
                if self.calls == before:
                    raise
                raise Hint("the step is made, but nothing is returned: return the loss of the first pass.") from None
            loss = number_of(answer.detach() if isinstance(answer, Tensor) else answer)
            if self.calls - before != 2:
                times = self.calls - before
                raise Hint(f"closure was called {times} time{'' if times == 1 else 's'}; a SAM step needs it twice.")
        return loss


def _sgd_step(function: Callable[..., Any]) -> str | None:
    problem, right = _Problem(), _Problem()
    base = SGD(problem.params, lr=_LR)
    loss = problem.run(function, base)
    wanted = right.run(_sam_over_base, SGD(right.params, lr=_LR))
    first, start = _gradient_at(_Problem().weights()), _Problem().weights()
    epsilon = _RHO * first / first.norm()
    each = torch.cat([_RHO * part / part.norm() for part in first.split([3, 4])])

    def step(shift: Tensor) -> Tensor:
        return start - _LR * _gradient_at(start + shift)

    mistakes = {
        "the weights have not returned to θ before the base's step.": step(epsilon) + epsilon,
        "the base has stepped with the gradient at θ: the second gradient is not used.": start - _LR * first,
        "nothing has changed: base.step() is missing.": start,
        "the weights are at θ + ε: take ε back, then call base.step().": start + epsilon,
        "ε is ρ g, not ρ g/‖g‖.": step(_RHO * first),
        "ε goes down the gradient; SAM goes up.": step(-epsilon),
        "one norm over all parameters is wanted, not one for each tensor.": step(each),
        "‖g‖ is the square root of the sum of squares; the root is missing.": step(_RHO * first / first.norm() ** 2),
    }
    hint = explain(
        problem.weights(), right.weights(), mistakes, "go to θ + ε, call closure(), return to θ, call base.step()."
    )
    if hint is None and not close(loss, wanted):
        return "the weights are right; return the loss of the first pass, at θ, not that at θ + ε."
    return hint


def _adamw_steps(function: Callable[..., Any]) -> str | None:
    """Two steps, with another ρ, over an optimizer with a state whose step depends on the weights, too."""

    def weights_after(attempt: Callable[..., Any], rho: float) -> tuple[Tensor, Optimizer]:
        problem = _Problem()
        base = AdamW(problem.params, lr=_LR, weight_decay=_DECAY)
        problem.run(attempt, base, num_steps=2, rho=rho)
        return problem.weights(), base

    answer, base = weights_after(function, _OTHER_RHO)
    counts = {int(state["step"]) for state in base.state.values() if "step" in state}
    if counts != {2}:
        found = ", ".join(map(str, sorted(counts))) or "no"
        return (
            f"with AdamW as base: after two SAM steps its state has counted {found} steps, not 2. Its step() belongs "
            "to the second pass alone, and no new optimizer is made."
        )
    mistakes = {
        "base.step() is called at θ + ε: AdamW shrinks the weights it finds, so return to θ first.": weights_after(
            _step_before_return, _OTHER_RHO
        )[0],
        "the result does not depend on rho.": weights_after(_sam_over_base, _RHO)[0],
    }
    otherwise = "right over SGD, but not over AdamW: the step must be base.step(), whatever the base does with .grad."
    return explain(answer, weights_after(_sam_over_base, _OTHER_RHO)[0], mistakes, otherwise)


def _sagm_direction(function: Callable[..., Any]) -> str | None:
    for rho, alpha in ((_RHO, _ALPHA), (_OTHER_RHO, _OTHER_ALPHA)):
        hint = _sagm_hint(function, rho, alpha)
        if hint is not None:
            return hint
    return None


def _sagm_hint(function: Callable[..., Any], rho: float, alpha: float) -> str | None:
    theta = _Problem().weights()
    answer = tensor_of(answer_of(function, _gradient_at, theta.clone(), rho, alpha), theta.shape)
    g = _gradient_at(theta)
    up, down = rho * g / g.norm(), alpha * g
    right = _sagm_gradient(_gradient_at, theta, rho, alpha)
    mistakes = {
        "this is SAM's gradient: α and the gradient at θ are missing.": _gradient_at(theta + up),
        "this is the gradient at θ + ε alone: take its mean with that at θ.": _gradient_at(theta + up - down),
        "this is the sum of the two gradients: take the mean, so that a learning rate means the same as for SGD.": g
        + _gradient_at(theta + up - down),
        "the step back, −αg, is missing in ε.": (g + _gradient_at(theta + up)) / 2,
        "ε steps back by αg: the sign of α is wrong.": (g + _gradient_at(theta + up + down)) / 2,
        "−αg is not divided by ‖g‖: α g shrinks with the gradient, ρ g/‖g‖ does not.": (
            g + _gradient_at(theta + up - down / g.norm())
        )
        / 2,
        "ρ g is to be divided by ‖g‖.": (g + _gradient_at(theta + rho * g - down)) / 2,
        "this is the plain gradient.": g,
        "this is ε: the mean of the gradients at θ and at θ + ε is wanted.": up - down,
        "the sign is wrong: the optimizer subtracts, so return the mean itself.": -right,
        "these are new weights: return the direction alone.": theta - right,
        "the result does not depend on rho and alpha.": _sagm_gradient(_gradient_at, theta, _RHO, _ALPHA),
    }
    return explain(answer, right, mistakes, "½ [∇L(θ) + ∇L(θ + ε)].")


def _gradient_at(theta: Tensor) -> Tensor:
    """That of the loss of `_Problem`."""
    return theta**3 + theta.cos()


def _sam_over_base(params: list[Tensor], closure: Callable[[], Tensor], base: Optimizer, rho: float) -> Tensor:
    loss = closure()
    with torch.no_grad():
        before = [param.clone() for param in params]
        grads = [param.grad for param in params if param.grad is not None]
        length = torch.linalg.vector_norm(torch.cat([grad.flatten() for grad in grads]))
        for param in params:
            if param.grad is not None and length > 0:
                param.add_(rho * param.grad / length)
    closure()
    with torch.no_grad():
        for param, value in zip(params, before, strict=True):
            param.copy_(value)
    base.step()
    return loss


def _step_before_return(params: list[Tensor], closure: Callable[[], Tensor], base: Optimizer, rho: float) -> Tensor:
    """A mistake that shows only over a base whose step depends on the weights."""
    loss = closure()
    length = torch.linalg.vector_norm(torch.cat([param.grad.flatten() for param in params if param.grad is not None]))
    steps = [rho * param.grad / length for param in params if param.grad is not None]
    with torch.no_grad():
        torch._foreach_add_(params, steps)
    closure()
    base.step()
    with torch.no_grad():
        torch._foreach_sub_(params, steps)
    return loss


def _sagm_gradient(gradient: Callable[[Tensor], Tensor], theta: Tensor, rho: float, alpha: float) -> Tensor:
    g = gradient(theta)
    return (g + gradient(theta + (rho / g.norm() - alpha) * g)) / 2
