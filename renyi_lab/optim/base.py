"""What every sharpness-aware optimizer shares: two gradients a step, exact return, the base optimizer's state.

    θ + ε ← perturb;   g' = ∇L_S(θ + ε);   return to θ exactly;   base optimizer steps from θ with g'

A method is one short override of `SharpnessAware.perturbation`, which says what ε is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from renyi_lab._validation import check_int, check_real
from renyi_lab.optim._base_optimizer import build_base

_SNIPPET = """

    def closure():
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        return loss

    loss = optimizer.step(closure)
"""


class SharpnessAware(Optimizer):
    """Base of the two-pass optimizers: subclasses say in `perturbation` where the second gradient is taken.

    ``param_groups`` and ``state`` are the base optimizer's own, so schedulers, hooks and checkpoints work as they do
    for a plain optimizer. ``rho`` stands in each group and may differ between groups (0 leaves a group unperturbed).
    Nothing on a step's path waits for the device.

    Args:
        params: parameters, named parameters or group dictionaries, as for any torch optimizer.
        base: class of the optimizer that takes the step, or an instance already built on the same parameters
            (then its own groups are used, and ``base_kwargs`` must be empty).
        rho: radius of the perturbation, > 0; its unit depends on the method.
        warmup_steps: number of plain base steps, one gradient each, before the first perturbed one. Default 0: none.
        **base_kwargs: passed to the ``base`` class (``lr``, ``momentum``, …).

    Raises:
        ValueError: an empty ``params``, a ``rho`` out of range, a base instance on other parameters or already
            wrapped, or a base with a hyperparameter of its own named ``rho`` (torch.optim.Adadelta).
        TypeError: a ``base`` that is no optimizer, or whose step needs a closure itself (torch.optim.LBFGS).
    """

    requires_closure = True

    # Where a step is: (perturbed parameters, their values before) between first_step() and second_step(), else None.
    _saved: tuple[list[Tensor], list[Tensor]] | None = None
    # What a pickle holds beside torch's own entries; a subclass appends the names of its settings.
    _pickled: tuple[str, ...] = ("base", "warmup_steps", "steps_taken")

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] | Optimizer,
        rho: float,
        *,
        warmup_steps: int = 0,
        **base_kwargs: Any,
    ) -> None:
        rho = check_real("rho", rho, 0.0, open_minimum=True)
        self.warmup_steps = check_int("warmup_steps", warmup_steps, minimum=0)
        self.steps_taken = 0
        self.base = build_base(params, base, base_kwargs)
        super().__init__(self.base.param_groups, {**self.base.defaults, "rho": rho})
        self.param_groups, self.state = self.base.param_groups, self.base.state

    def perturbation(self, grads: list[Tensor], params: list[Tensor], rhos: list[float]) -> list[Tensor]:
        """Return ε, one new tensor for each of ``params``; ``grads`` and ``params`` must stay as they are.

        Called without autograd, with the parameters that have a gradient and each one's ``rho``.
        """
        raise NotImplementedError(f"{type(self).__name__} must override perturbation().")

    @property
    def warming_up(self) -> bool:
        """Whether the next step is one of the first ``warmup_steps``, a plain step of the base optimizer."""
        return self.steps_taken < self.warmup_steps

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure`` is run at θ and at θ + ε, and what it returned at θ is returned.

        If anything goes wrong in between, an interrupt included, the weights are back at θ bit for bit.

        Args:
            closure: clears the gradients, computes the loss, calls ``backward()`` and returns the loss.

        Raises:
            TypeError: no callable ``closure``.
            RuntimeError: a closure that leaves no gradient, a sparse gradient, or an unfinished first_step().
        """
        if not callable(closure):
            raise TypeError(f"step() needs a closure, because the gradient is taken twice:{_SNIPPET}")
        self._refuse_mid_step("step()")
        with torch.enable_grad():
            loss = closure()
        if self.warming_up:
            self._base_step()
            return loss
        try:
            self.first_step()
            with torch.enable_grad():
                closure()
            self.second_step()
        finally:
            self.restore()
        return loss

    @torch.no_grad()
    def first_step(self) -> None:
        """Move the weights to θ + ε and clear the gradients, so that the second backward() cannot add to the first.

        During warm-up ε = 0, so that a hand-written loop needs no branch.

        Raises:
            RuntimeError: no gradient, a sparse gradient, or a first_step() that was not finished.
        """
        self._refuse_mid_step("first_step()")
        params, grads, rhos = self._gradients()
        if self.warming_up:
            self._saved = ([], [])
        else:
            epsilon = self.perturbation(grads, params, rhos)
            self._saved = (params, [param.detach().clone() for param in params])
            torch._foreach_add_(params, epsilon)
        self.zero_grad()

    def second_step(self) -> None:
        """Return the weights to θ exactly and let the base optimizer step with the gradients of θ + ε.

        Raises:
            RuntimeError: first_step() has not been called, or no gradient has been computed since.
        """
        if self._saved is None:
            raise RuntimeError(
                "second_step() needs first_step(), then a backward() at the perturbed weights, before it."
            )
        self.restore()
        self._base_step()

    @torch.no_grad()
    def restore(self) -> None:
        """Give up a step after first_step(): the weights return to θ exactly. Elsewhere it does nothing."""
        if self._saved is not None:
            params, values = self._saved
            if params:
                torch._foreach_copy_(params, values)
            self._saved = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, to the base optimizer as well; its ``rho`` may be given, ≥ 0."""
        if isinstance(param_group, dict) and "rho" in param_group:
            check_real("rho of the parameter group", param_group["rho"], 0.0)
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state and the count of steps; refused between first_step() and second_step()."""
        self._refuse_mid_step("state_dict()")
        packed = super().state_dict()
        packed["sharpness_aware"] = {"steps_taken": self.steps_taken}
        return packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from `state_dict` bit for bit, the base optimizer's state included."""
        self._refuse_mid_step("load_state_dict()")
        if "sharpness_aware" not in state_dict:
            raise ValueError(
                "state_dict has no 'sharpness_aware' entry: it is not that of a sharpness-aware optimizer. To go on "
                "from a plain optimizer's state, load it into that optimizer and pass the instance as base."
            )
        super().load_state_dict(state_dict)
        self.steps_taken = state_dict["sharpness_aware"]["steps_taken"]

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_mid_step("pickling or copying")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in self._pickled}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # torch comes here after unpickling and after loading, with new containers: the base must hold the same ones.
        self.base.__setstate__({"state": self.state, "param_groups": self.param_groups})

    def _base_step(self) -> None:
        self._gradients()
        self.base.step()
        self.steps_taken += 1
        self._opt_called = True  # schedulers look for it; without it they warn in hand-written loops

    def _gradients(self) -> tuple[list[Tensor], list[Tensor], list[float]]:
        """The parameters that have a gradient, the gradients, and each one's rho."""
        found = [(p, p.grad, g["rho"]) for g in self.param_groups for p in g["params"] if p.grad is not None]
        if not found:
            raise RuntimeError(
                "No parameter of this optimizer has a gradient: backward() was not called, was called before the "
                f"gradients were cleared, or the model is another one. What a step expects:{_SNIPPET}"
            )
        params, grads, rhos = (list(column) for column in zip(*found, strict=True))
        for param, grad in zip(params, grads, strict=True):
            if grad.layout != torch.strided:
                raise RuntimeError(
                    f"The parameter of shape {tuple(param.shape)} has a sparse gradient, which is not supported: "
                    "build the embedding with sparse=False."
                )
        return params, grads, rhos

    def _refuse_mid_step(self, what: str) -> None:
        if self._saved is not None:
            raise RuntimeError(
                f"{what} is refused between first_step() and second_step(), where the weights are perturbed: finish "
                "with second_step(), or give the step up with restore()."
            )
