"""The collision entropy of the true Hessian as a term of the training loss, estimated from random probes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from renyi_lab._utils.fields import check_fields
from renyi_lab._utils.parameters import check_uniform, is_distributed
from renyi_lab._utils.validation import check_int, is_iterable

# A text without numbers, so that Python shows it once and not at every step of a training.
_UNRESOLVED = (
    "the mean of the quadratic forms vᵀHv is within one standard error of zero: the trace is not resolved by so few "
    "probes, and log |tr H| may be far off. Raise num_probes, or start the penalty after some plain epochs."
)


@dataclass(frozen=True, eq=False)
class CollisionEntropyPenalty:
    """Result of `collision_entropy_penalty`: two scalars that can be differentiated by the parameters.

    Attributes:
        log_frobenius_squared: Estimate of ``log tr H²``.
        log_trace: Estimate of ``log |tr H|``: on its own, a penalty on the trace.
        num_probes: Number of probes, each one product ``H v``.
    """

    log_frobenius_squared: Tensor
    log_trace: Tensor
    num_probes: int

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("log_frobenius_squared", "log_trace"):
            if math.prod(getattr(self, name).shape) != 1:
                raise ValueError(
                    f"{name} must be one number, got a tensor of shape {tuple(getattr(self, name).shape)}."
                )

    @property
    def value(self) -> Tensor:
        """``log tr H² − 2 log |tr H|``, in nats: the estimate of ``−H₂``."""
        return self.log_frobenius_squared - 2 * self.log_trace

    def __repr__(self) -> str:
        return f"CollisionEntropyPenalty(value={float(self.value.detach()):.4g}, {self.num_probes} probes)"


def collision_entropy_penalty(
    loss: Tensor, parameters: Iterable[Tensor], *, num_probes: int = 2, generator: torch.Generator
) -> CollisionEntropyPenalty:
    r"""Estimate ``−H₂`` of the loss's own Hessian in a form that can be added to the loss and differentiated.

        b = (1/m) Σ_k ‖H v_k‖²,   a = (1/m) Σ_k v_kᵀ H v_k,   v_k ∈ {−1, 1}ⁿ random signs
        value = log b − 2 log |a|  ≈  log tr H² − 2 log |tr H|

    ``loss + mu * penalty.value`` with ``mu`` > 0 makes the spectrum more even (H₂ up, Rényi sharpness down); ``mu`` < 0
    asks for the opposite, against the noise of its own gradient, which flattens. ``loss + kappa * penalty.log_trace``
    penalises the trace alone; ``mu * penalty.log_frobenius_squared - nu * penalty.log_trace`` weighs the two as one
    likes. How to train with it: `renyi_lab.optim.recipes`.

    *What is estimated.* Rényi sharpness of order 2 is that of the magnitudes, ``S₂ = log Σλ² − 2 log Σ|λ|``, and
    ``|Σλ| ≤ Σ|λ|``, so the value is an upper bound, ``S₂ + 2 log(Σ|λ| / |tr H|)``, exact where all eigenvalues other
    than zero have one sign. Early in training and for linear losses the trace may be near zero while H is not.

    *Bias.* ``a`` and ``b`` are unbiased, their logarithms are not. To first order in ``1/m`` the mean of ``log |a|`` is
    too low by at most ``exp(S)/m``, where ``exp(S) = tr H²/(tr H)²``, and that of ``log b`` by at most
    ``tr H⁴/(tr H²)²/m``: about 0.01 and 0.05 nats for two probes and a spectrum of ten outliers that hold half
    of the trace. The gradient is biased alike.

    *Cost.* A step with ``m`` probes takes about ``2 + 5 m`` times the matrix products of a plain gradient: 12 for two
    probes. Small networks, where the overhead of many small operations counts, take up to 20 times as long. The graphs
    of all products are kept in memory until ``backward()``.

    ``.grad``, the model and the global random state are left unchanged.

    Args:
        loss: Scalar loss with its graph, such as ``loss_fn(model(x), y)`` on a mini-batch. Its graph is kept.
        parameters: What H belongs to, ``model.parameters()`` or those of one block; frozen ones are left out.
        num_probes: Number ``m`` of random probes, at least 1. Default 2, as in the shipped experiment (heuristic: the
            fewest whose quadratic forms can be compared). One probe gives a warning.
        generator: Generator for the signs, made once before the training: ``torch.Generator().manual_seed(0)``. Each
            call draws from it, so that each step has fresh probes.

    Returns:
        `CollisionEntropyPenalty`.

    Raises:
        TypeError: If ``loss`` is no tensor, a parameter is none, or ``generator`` is no ``torch.Generator``.
        ValueError: If ``loss`` is no finite real scalar with a graph, does not depend on a parameter, or has no second
            derivative; if its graph was freed by ``backward()``, or gradients are disabled; if a parameter is given
            twice, or parameters are sharded (FSDP); if H or its trace is zero to these probes, so that a logarithm does
            not exist, or H is not finite; if ``num_probes < 1``; if parameters differ in dtype or device, or are
            complex or in half precision.

    Warns:
        UserWarning: With one probe; or if the mean of the quadratic forms ``vᵀ H v`` is within one standard error of
            zero (of two probes: if they have both signs), so that the trace is not resolved.

    Source:
        Hutchinson 1990 for both moments. The penalty is this package's own; its effect is measured on the page
        "Intervention" of the results.

    Example:
        >>> weights = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> loss = (weights**4).sum() / 12  # H = diag(1, 4), for which signs are exact
        >>> penalty = collision_entropy_penalty(loss, [weights], generator=torch.Generator().manual_seed(0))
        >>> round(penalty.value.item(), 4), round(math.log((1 + 16) / (1 + 4) ** 2), 4)
        (-0.3857, -0.3857)
    """
    count = check_int("num_probes", num_probes)
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, made once before the training as torch.Generator().manual_seed(0); "
            f"got {type(generator).__name__}."
        )
    chosen = _checked(loss, parameters)
    probes = [[_signs(parameter, generator) for parameter in chosen] for _ in range(count)]
    if count == 1:
        warnings.warn(
            "num_probes=1: the logarithms of single-probe estimates have the largest bias, and a trace near zero is "
            "not noticed; 2 or more are advised.",
            stacklevel=2,
        )
    squares, forms = hessian_probes(loss, chosen, probes)
    if count > 1 and bool(forms.detach().mean().abs() < forms.detach().std() / count**0.5):
        warnings.warn(_UNRESOLVED, stacklevel=2)
    return _log_moments(squares, forms)


def hessian_probes(
    loss: Tensor, parameters: Sequence[Tensor], probes: Iterable[Sequence[Tensor]]
) -> tuple[Tensor, Tensor]:
    """``‖H v‖²`` and ``vᵀ H v`` of each probe, with their graph.

    Args:
        loss: Scalar with its graph.
        parameters: What H belongs to.
        probes: Vectors, each a list of tensors shaped like the parameters.
    """
    slopes = _slopes(loss, parameters)
    curved = [index for index, slope in enumerate(slopes) if slope.requires_grad]
    if not curved:
        raise ValueError(
            "loss has no second derivative: its gradient is constant, as for a loss that is linear in the parameters, "
            "or an operation computes it outside autograd, as a torch.autograd.Function may. H₂ of a zero Hessian is "
            "the logarithm of nothing."
        )
    squares, forms = [], []
    for probe in probes:
        slope = sum((torch.sum(slopes[i] * probe[i]) for i in curved), start=loss.new_zeros(()))
        product = _product(slope, parameters)
        squares.append(sum((torch.sum(part * part) for part in product), start=loss.new_zeros(())))
        forms.append(sum((torch.sum(p * v) for p, v in zip(product, probe, strict=True)), start=loss.new_zeros(())))
    return torch.stack(squares), torch.stack(forms)


def _slopes(loss: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    try:
        slopes = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(
            f"loss cannot be differentiated: {error}. Likely cause: loss.backward() freed the graph; compute the "
            "penalty before loss.backward()."
        ) from error
    for index, slope in enumerate(slopes):
        if slope is None:
            raise ValueError(
                f"loss does not depend on parameter {index} of shape {tuple(parameters[index].shape)}; pass only "
                "parameters of the model that the loss was computed with."
            )
    return slopes


def _product(slope: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    try:
        return torch.autograd.grad(slope, parameters, create_graph=True, allow_unused=True, materialize_grads=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(
            f"loss has no second derivative: {error}. Replace the operation by one that can be differentiated twice."
        ) from error


def _log_moments(squares: Tensor, forms: Tensor) -> CollisionEntropyPenalty:
    square, form = squares.mean(), forms.mean()
    if not math.isfinite(float(square.detach())):
        raise ValueError(
            f"tr H² is not finite ({float(square.detach())}). Likely causes: training diverges, or an operation has an "
            "infinite second derivative, such as a norm or a square root at zero."
        )
    for name, moment in (("tr H²", square), ("tr H", form)):
        if float(moment.detach()) == 0:
            raise ValueError(
                f"the estimate of {name} is exactly zero, so its logarithm does not exist. Likely causes: a loss that "
                "is linear in the parameters on this batch, a saturated model, or eigenvalues of both signs that "
                "cancel; add the penalty only where the loss is curved, or raise num_probes."
            )
    return CollisionEntropyPenalty(square.log(), form.abs().log(), squares.numel())


def _signs(parameter: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(2, parameter.shape, generator=generator, device=generator.device)
    return 2 * drawn.to(parameter.device, parameter.dtype) - 1


def _checked(loss: Tensor, parameters: Iterable[Tensor]) -> list[Tensor]:
    """The parameters that require a gradient, once loss and parameters are what a Hessian needs."""
    if not torch.is_grad_enabled():
        raise ValueError("gradients are disabled here: call the penalty outside torch.no_grad().")
    if not isinstance(loss, Tensor):
        raise TypeError(f"loss must be a tensor with its graph, not loss.item(); got {type(loss).__name__}.")
    if isinstance(parameters, Tensor):
        raise TypeError("parameters must be several tensors, such as model.parameters(); write [parameter] for one.")
    if loss.numel() != 1 or not loss.is_floating_point():
        raise ValueError(f"loss must be one real number, got shape {tuple(loss.shape)} of {loss.dtype}: take its mean.")
    if not loss.requires_grad:
        raise ValueError("loss has no graph: compute it with gradients enabled, and do not detach it.")
    if not math.isfinite(float(loss.detach())):
        raise ValueError(f"loss is not finite ({float(loss.detach())}). Likely cause: training diverges; lower lr.")
    if not is_iterable(parameters):
        raise TypeError(f"parameters must be tensors, such as model.parameters(); got {type(parameters).__name__}.")
    given = list(parameters)
    for parameter in given:
        if not isinstance(parameter, Tensor):
            raise TypeError(f"parameters must be tensors, such as model.parameters(); got {type(parameter).__name__}.")
    chosen = [parameter for parameter in given if parameter.requires_grad and parameter.numel()]
    if not chosen:
        raise ValueError(f"parameters hold no tensor that requires a gradient (of {len(given)} given).")
    if any(map(is_distributed, chosen)):
        raise ValueError(
            "parameters are sharded among processes (FSDP), so that the loss was computed with other tensors, gathered "
            "for the time of a pass, and cannot be differentiated twice by these: use DistributedDataParallel."
        )
    if len({id(parameter) for parameter in chosen}) < len(chosen):
        raise ValueError("parameters hold a tensor twice, which would count it twice in H; pass each once.")
    check_uniform({f"{index}": parameter for index, parameter in enumerate(chosen)})
    return chosen
