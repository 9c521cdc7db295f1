"""What every sharpness-aware optimizer shares: two gradients per step, exact return, the base optimizer's state.

    θ + ε ← perturb;   g' = ∇L_S(θ + ε);   return to θ exactly;   base optimizer steps from θ with g'

A method is one short override of `SharpnessAware.perturbation`, which returns ε. `renyi_lab.optim.recipes` covers mixed
precision, batch norm, several processes and gradient accumulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from renyi_lab._utils.interrupts import atomic, interruptible, restoring, uninterrupted
from renyi_lab._utils.validation import check_closure, check_instance, check_int, check_real
from renyi_lab.optim._base_optimizer import build_base, default_settings, optional_limit
from renyi_lab.optim._entries import check_entries, check_group_entries, parameters_in
from renyi_lab.optim._gradients import STEP_SNIPPET, averaged_gradients, gradients, gradients_of_each
from renyi_lab.optim._shards import Shards, laid_out_like, local_parts
from renyi_lab.optim._vectors import as_real, clip_, shorten_


class SharpnessAware(Optimizer):
    """Base class of the two-pass optimizers; subclasses define in `perturbation` where the second gradient is taken.

    ``param_groups`` and ``state`` are the base optimizer's own, so schedulers, hooks and checkpoints work as they do
    for a plain optimizer. ``rho`` is a setting of each group and may differ between groups (0 leaves a group
    unperturbed). A step never waits for the device.

    Args:
        params: Parameters, named parameters or group dictionaries, as for any torch optimizer.
        base: Class of the optimizer that takes the step, or an instance already built on the same parameters
            (then its own groups are used, and ``base_kwargs`` must be empty).
        rho: Radius of the perturbation, > 0; its unit depends on the method.
        warmup_steps: Number of plain base steps, one gradient each, before the first perturbed one. Default 0.
        max_grad_norm: Norm, > 0, to which the gradient at θ + ε, the one that the base steps with, is clipped.
            Default: no clipping. (Clipping inside the closure would shorten the first gradient too, and ε may depend
            on its length.)
        group_settings: Further settings of each group, for subclasses.
        **base_kwargs: Hyperparameters of the ``base`` class (``lr``, ``momentum``, …).

    Attributes:
        perturbation_norm: ‖ε‖ of the latest step over all parameters, a tensor on the first parameter's device. Where
            parameters are sharded, over the shards of all processes.

    Raises:
        ValueError: If ``params`` hold no tensor, the same one twice or a non-leaf, ``rho`` is out of range, a base
            instance is on other parameters or already wrapped, or the base has a hyperparameter of its own named
            ``rho`` (torch.optim.Adadelta).
        TypeError: If ``params`` hold something else, ``base`` is not an optimizer or needs a closure for its own step
            (torch.optim.LBFGS), or parameters are sharded by ``FullyShardedDataParallel`` (FSDP1) or complex and
            sharded.
    """

    requires_closure = True
    max_norm: float | None = None  # the limit of ‖ε‖, for methods whose ε may grow without one
    # Between first_step() and second_step(): the perturbed parameters, their values and their gradients before.
    _saved: tuple[list[Tensor], list[Tensor], list[Tensor]] | None = None
    _follows_base = False
    # After a first pass without averaging (`local_perturbation`): the processes whose gradients differ.
    _local_group: Any = None

    def __init__(
        self,
        params: Iterable[Any],
        base: type[Optimizer] | Optimizer,
        rho: float,
        *,
        warmup_steps: int = 0,
        max_grad_norm: float | None = None,
        group_settings: dict[str, Any] | None = None,
        **base_kwargs: Any,
    ) -> None:
        entries = check_entries(params)
        check_instance("group_settings", group_settings, (Mapping, type(None)))
        settings = {"rho": check_real("rho", rho, 0.0, open_minimum=True), **(group_settings or {})}
        self.warmup_steps = check_int("warmup_steps", warmup_steps, minimum=0)
        self.max_grad_norm = optional_limit("max_grad_norm", max_grad_norm)
        self.steps_taken = 0
        self.base = build_base(entries, base, {**default_settings(base), **base_kwargs}, settings)
        super().__init__(self.base.param_groups, {**self.base.defaults, **settings})
        self._follow_base()
        self.perturbation_norm = torch.zeros((), device=next(parameters_in(self.param_groups)).device)

    def perturbation(self, grads: list[Tensor], params: list[Tensor], groups: list[dict[str, Any]]) -> list[Tensor]:
        """Return ε, one new tensor for each of ``params``; ``grads`` and ``params`` must stay as they are.

        Called without autograd. A complex parameter is passed as ``torch.view_as_real`` of it, as two real numbers per
        entry, as torch's own optimizers treat it; so are its gradient and ε. A sharded parameter is passed as the
        DTensor that it is, so that sums and norms of torch run over all shards; ε may be DTensors or this process's
        shards.

        Args:
            grads: Gradients at θ of the parameters that have one.
            params: These parameters, at θ.
            groups: The parameter group of each of them, with its ``rho``.
        """
        raise NotImplementedError(f"{type(self).__name__} must override perturbation().")

    def combine(self, params: list[Tensor], first: list[Tensor]) -> None:
        """Mix the gradients at θ into ``.grad``, the gradients at θ + ε. The default leaves ``.grad`` as it is.

        Args:
            params: The perturbed parameters, back at θ.
            first: Their gradients at θ.
        """

    @property
    def in_second_pass(self) -> bool:
        """Whether the weights are at θ + ε: first_step() is done and second_step() is not."""
        return self._saved is not None

    @property
    def warming_up(self) -> bool:
        """Whether the next step is one of the first ``warmup_steps``, a plain step of the base optimizer."""
        return self.steps_taken < self.warmup_steps

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure`` is run at θ and at θ + ε.

        After an error or interrupt in between, the weights are at θ again, bit for bit.

        Args:
            closure: Function that clears the gradients, computes the loss, calls ``backward()`` and returns the loss.

        Returns:
            What the closure returned at θ.

        Raises:
            TypeError: If ``closure`` is not callable.
            RuntimeError: If the closure leaves no gradient or a sparse one, or after an unfinished first_step().
        """
        if not callable(closure):
            raise TypeError(f"step() needs a closure, because the gradient is taken twice:{STEP_SNIPPET}")
        check_closure("closure", closure, f", such as{STEP_SNIPPET}")
        self._refuse_mid_step("step()")
        with back_at_the_end(self):
            loss = evaluated(closure)
            if self.warming_up:
                self._base_step()
            else:
                self.first_step()
                evaluated(closure)
                self.second_step()
        return loss

    @uninterrupted
    @torch.no_grad()
    def first_step(self) -> None:
        """Move the weights to θ + ε and clear the gradients, so that the second backward() cannot add to the first.

        During warm-up ε = 0, so that a hand-written loop needs no branch.

        Raises:
            RuntimeError: If there is no gradient or a sparse one, or after an unfinished first_step().
        """
        self._refuse_mid_step("first_step()")
        params, grads, groups = gradients_of_each(self.param_groups, self._local_group)
        if self.warming_up:
            self._saved = ([], [], [])
        else:
            placed = laid_out_like(grads, params)
            epsilon = self.perturbation(as_real(placed), as_real(params), groups)
            parts = local_parts(laid_out_like(epsilon, as_real(params)))
            self.perturbation_norm = shorten_(parts, self.max_norm, Shards(placed).total)
            self._save(params, grads)
            torch._foreach_add_(as_real(local_parts(params)), parts)
        self.zero_grad()

    @uninterrupted
    def second_step(self) -> None:
        """Return the weights to θ exactly and let the base optimizer step with the gradients at θ + ε.

        Raises:
            RuntimeError: If first_step() has not been called, or no gradient has been computed since.
        """
        if self._saved is None:
            raise RuntimeError(
                "second_step() needs first_step(), then a backward() at the perturbed weights, before it."
            )
        params, _, first = self._saved
        self.restore()
        with torch.no_grad():
            self.combine(params, first)
        self._base_step()

    @uninterrupted
    @torch.no_grad()
    def restore(self) -> None:
        """Cancel a step after first_step(): the weights return to θ exactly. Elsewhere this does nothing."""
        if self._saved is not None:
            params, values, _ = self._saved
            if params:
                torch._foreach_copy_(local_parts(params), values)
            self._saved = None
        self._local_group = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, to the base optimizer as well.

        Args:
            param_group: Dictionary with ``params`` and any settings of the group, such as ``rho`` ≥ 0.
        """
        check_group_entries(param_group, parameters_in(self.param_groups))
        self.check_group(param_group)
        super().add_param_group(param_group)

    def check_group(self, group: dict[str, Any]) -> None:
        """Raise an error if a setting in ``group`` is out of range."""
        if "rho" in group:
            check_real("rho of the parameter group", group["rho"], 0.0)

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state and the number of steps; refused between first_step() and second_step()."""
        self._refuse_mid_step("state_dict()")
        packed = super().state_dict()
        packed["sharpness_aware"] = {"steps_taken": self.steps_taken}
        return packed

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a `state_dict`, bit for bit."""
        self._refuse_mid_step("load_state_dict()")
        if "sharpness_aware" not in check_instance("state_dict", state_dict, Mapping):
            raise ValueError(
                "state_dict has no 'sharpness_aware' entry, so it is not from a sharpness-aware optimizer. To continue "
                "from a plain optimizer's state, load it into that optimizer and pass the instance as base."
            )
        super().load_state_dict(state_dict)
        self.steps_taken = state_dict["sharpness_aware"]["steps_taken"]

    def __getstate__(self) -> dict[str, Any]:
        self._refuse_mid_step("pickling or copying")
        # torch's own state lacks the settings; a scheduler's replacement of step() cannot be pickled.
        own = {k: value for k, value in vars(self).items() if not (k.startswith("_") or callable(value))}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # torch calls this after unpickling and after loading, with new containers: the base must hold the same ones.
        self.base.__setstate__({"state": self.state, "param_groups": self.param_groups})
        self._follow_base()

    def _follow_base(self, _: Optimizer | None = None) -> None:
        """Share the containers of the base optimizer, now and whenever a state is loaded into it alone."""
        self.param_groups, self.state = self.base.param_groups, self.base.state
        if not self._follows_base:
            self.base.register_load_state_dict_post_hook(self._follow_base)
            self._follows_base = True

    def _save(self, params: list[Tensor], first: list[Tensor]) -> None:
        """Keep the values at θ and the first gradients, averaged where they differ among processes and are needed."""
        if self._local_group is not None and type(self).combine is not SharpnessAware.combine:
            params, first = averaged_gradients(self.param_groups, self._local_group)
        self._saved = (params, [part.detach().clone() for part in local_parts(params)], first)

    @atomic
    def _base_step(self) -> None:
        params, grads, _ = gradients(self.param_groups)
        if self.max_grad_norm is not None:
            with torch.no_grad():
                clip_(local_parts(grads), self.max_grad_norm, Shards(laid_out_like(grads, params)).total)
        self.base.step()
        self.steps_taken += 1
        self._opt_called = True  # without it schedulers warn in hand-written loops

    def _refuse_mid_step(self, what: str) -> None:
        if self._saved is not None:
            raise RuntimeError(
                f"{what} is refused between first_step() and second_step(), where the weights are perturbed: finish "
                "with second_step(), or cancel the step with restore()."
            )


@restoring
def back_at_the_end(optimizer: SharpnessAware) -> Iterator[None]:
    """After the block, also when it raises, the weights are at θ."""
    try:
        yield
    finally:
        optimizer.restore()


@interruptible
def evaluated(closure: Callable[[], Any]) -> Any:
    """What the closure returns; it may be interrupted also where an optimizer's step may not."""
    with torch.enable_grad():
        return closure()
