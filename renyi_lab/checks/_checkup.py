"""All checks in one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from renyi_lab._utils.batches import Batch, freeze_batches, is_tensor_data_set
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.masses import LossReduction
from renyi_lab._utils.model_state import unwrap_model
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.random import preserved_rng, seed_all
from renyi_lab._utils.validation import check_choice, check_int, check_loss_fn
from renyi_lab.checks._before import before
from renyi_lab.checks._finding import PROBLEM, Finding, problem
from renyi_lab.checks._point import at_point, point_of
from renyi_lab.checks._products import REPEATABILITY, products, same_data, training_flag
from renyi_lab.checks._result import Checkup
from renyi_lab.checks._spectra import at_spectrum, spectra_of
from renyi_lab.checks._subject import subject_of
from renyi_lab.checks._units import without_effect
from renyi_lab.operators import HessianOperator

# Findings after which nothing can be computed.
_FATAL = ("weights", "precision")
_NUM_STEPS = 8  # of the progress bar


def checkup(
    model: nn.Module,
    loss_fn: Callable[..., Tensor],
    data: Any,
    *,
    num_matvecs: int = 200,
    seed: int = 0,
    mode: str = "eval",
    loss_style: str | None = None,
    reduction: str | None = None,
    batch_mass: Callable[[Any], Any] | None = None,
    progress: bool | None = None,
) -> Checkup:
    """Check what a Hessian spectrum of your own model can be trusted for.

    Checked are weights, data and precision; frozen and unused parameters; dropout and batch norm; the loss beside that
    of a model that does not know its inputs; outputs, saturation and gradient; dead units; symmetry of the products,
    their agreement with differences of the gradient, and repeatability; negative curvature and rounding; the spectrum
    with twice the steps and with twice the samples. Whatever is found says what was measured, what it means and what
    to do. The limits are heuristics, set so that usual trained networks pass; no check proves anything.

    It costs about twice as much as one spectrum of ``num_matvecs`` products, and as much memory as one and a copy of
    the model in double precision. The model is left unchanged, bit for bit.

    Args:
        model: Any module with trainable parameters.
        loss_fn: As for `HessianOperator`.
        data: As for `HessianOperator`. A data set or DataLoader is read twice, to see whether its data change.
        num_matvecs: Products of the spectrum, as in `estimate_spectrum`.
        seed: Random seed for probes and halves, and for what is random in the model.
        mode: ``"eval"`` or ``"train"``, as for `HessianOperator`.
        loss_style: As for `HessianOperator`.
        reduction: As for `HessianOperator`.
        batch_mass: As for `HessianOperator`.
        progress: Whether to show a progress bar. ``None``: in a terminal or notebook.

    Returns:
        A `Checkup`. Where a problem leaves nothing to compute, such as weights that are not finite, its ``spectrum`` is
        ``None``.

    Raises:
        TypeError: ``model``, ``data`` or ``loss_fn`` is of a type that cannot be used.
        ValueError: The data are empty, the model has no trainable parameters, or an argument is out of range.

    Example:
        >>> import torch
        >>> x = torch.linspace(-1, 1, 100).reshape(-1, 1)
        >>> line = torch.nn.Linear(1, 1)
        >>> with torch.no_grad():
        ...     line.weight[:], line.bias[:] = 2.0, 0.0
        >>> checkup(line, torch.nn.MSELoss(), (x, 2 * x)).trustworthy
        True
    """
    check_int("num_matvecs", num_matvecs)
    check_int("seed", seed, 0)
    check_choice("mode", mode, ("eval", "train"))
    check_loss_fn(loss_fn)
    if loss_style is not None:
        check_choice("loss_style", loss_style, ("output_target", "model_batch"))
    LossReduction(loss_fn, reduction, batch_mass)  # raises where these contradict each other
    module = unwrap_model(model)
    batches = freeze_batches(data, _device(module))
    subject = subject_of(module, loss_fn, batches, mode)
    findings = list(before(module, batches, mode))
    if any(finding.status == PROBLEM and finding.name in _FATAL for finding in findings):
        return Checkup(findings, subject)

    def build(model: nn.Module, loss_fn: Callable[..., Tensor], batches: Sequence[Batch], seed: int) -> HessianOperator:
        return HessianOperator(
            model,
            loss_fn,
            batches,
            mode=mode,
            loss_style=loss_style,
            reduction=reduction,
            batch_mass=batch_mass,
            seed=seed,
        )

    with progress_bar(_NUM_STEPS, "checks", progress) as bar, exclusive(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what they say is a finding
        try:
            H = build(module, loss_fn, batches, seed)
        except ValueError as error:
            return Checkup([*findings, problem("loss", str(error))], subject)
        result = Checkup(findings, replace(subject, loss=H.loss, precision=H.precision))
        try:
            return _measured(result, H, build, data, num_matvecs, bar.update)
        except (ValueError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            return replace(result, findings=[*findings, problem("second derivatives", str(error))])


def _measured(
    result: Checkup,
    H: HessianOperator,
    build: Callable[..., HessianOperator],
    data: Any,
    num_matvecs: int,
    on_step: Callable[[], object],
) -> Checkup:
    """The result with the findings that need derivatives."""
    findings = result.findings

    def add(found: Iterable[Finding]) -> None:
        findings.extend(found)
        on_step()

    if _can_be_read_again(data):
        add([same_data(H, _second_pass(data, H.device, H.seed), build)])
    point = point_of(H, build, H.seed)
    add(at_point(H, point))
    add(without_effect(H, point.gradient))
    if not any(finding.name == "mode" and not finding.is_ok for finding in findings):
        add(filter(None, [training_flag(H)]))
    of_products = list(products(H, build, H.seed))
    add(of_products)
    is_random = any(finding.name == REPEATABILITY and not finding.is_ok for finding in of_products)
    spectra = spectra_of(H, num_matvecs, H.seed, on_step)
    add(at_spectrum(H, spectra, is_random))
    return replace(result, spectrum=spectra.whole, cost=H.estimate_cost(num_matvecs), data_errors=spectra.data_errors)


def _device(model: nn.Module) -> torch.device:
    trainable = [p for p in model.parameters() if p.requires_grad and p.numel()]
    if not trainable:
        raise ValueError(
            f"model ({type(model).__name__}) has no trainable parameters, so it has no Hessian; pass a model with "
            "weights, and call requires_grad_(True) on those you want."
        )
    return trainable[0].device


def _can_be_read_again(data: Any) -> bool:
    return isinstance(data, (Dataset, DataLoader)) and not is_tensor_data_set(data)


def _second_pass(data: Any, device: torch.device, seed: int) -> list[Batch]:
    with preserved_rng():
        seed_all(seed + 12345)  # otherwise random augmentation would repeat itself
        return freeze_batches(data, device)
