"""All measures of one network in one table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.interrupts import restoring
from renyi_lab._utils.parameter_blocks import block_parameters
from renyi_lab._utils.parameters import ParameterSelection, select_parameters
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.validation import check_int, check_reals
from renyi_lab.operators import HessianOperator, random_subset
from renyi_lab.sharpness._measures import Measure, Network, measures_at
from renyi_lab.sharpness._norms import initial_weights
from renyi_lab.sharpness._result import NAN, WHOLE, Row, SharpnessReport
from renyi_lab.spectrum import Spectrum, estimate_spectrum


def sharpness_report(
    model: nn.Module,
    loss_fn: Callable[..., Tensor],
    data: Any,
    *,
    alphas: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
    num_matvecs: int = 200,
    seed: int = 0,
    initial_parameters: Mapping[str, Tensor] | Iterable[Tensor] | None = None,
    blocks: bool | ParameterSelection | Mapping[str, ParameterSelection] = True,
    num_samples: int | None = None,
    perturbation_samples: int | None = 1024,
    progress: bool | None = None,
    reduction: str | None = None,
    batch_mass: Callable[[Any], Any] | None = None,
    process_group: Any = None,
) -> SharpnessReport:
    """Compute every sharpness measure of `MEASURES` for a network; the model is left unchanged, bit for bit.

    Args:
        model: Any module with trainable parameters; measured in evaluation mode.
        loss_fn: Loss ``loss_fn(model(x), y)`` for batches ``(x, y)``, or ``loss_fn(model, batch)`` for other batches.
        data: Pair ``(x, y)``, iterable of batches, or `DataLoader`, as in `HessianOperator`; batches are frozen once.
        alphas: Orders of Rényi sharpness. Default: those of the course, among them 0.5 and 1.5 of Zhang et al.,
            arXiv:2510.07758 (2025).
        num_matvecs: Matrix-vector products per spectrum, at least 1; a block with fewer rows takes as many as it has.
            Default 200, as in `estimate_spectrum`.
        seed: Random seed for probes, noise, starting points and subsets.
        initial_parameters: State dict (a copy) or list of tensors from before training, for the distance from
            initialisation. ``None``: that row is NaN.
        blocks: ``True``: spectra of every parameter tensor too; ``False``: of the whole network only; or names and
            globs as in the ``params`` of `HessianOperator`, such as ``"*.weight"``, for each tensor that they select;
            or a mapping ``{name: params}``, such as ``{"attention": "*.attn"}``, for blocks of several tensors.
        num_samples: Size of a random subset for spectra, gradient and norms. ``None``: all samples.
        perturbation_samples: Size of a random subset for the measures that perturb the weights. ``None``: all samples.
            Default 1024 (Andriushchenko et al. 2023).
        progress: Whether to show a progress bar. ``None``: in a terminal or notebook.
        reduction: ``"mean"`` or ``"sum"``, as for `HessianOperator`. ``None``: that of ``loss_fn``.
        batch_mass: The denominator of a batch's mean loss as a function of the batch, as for `HessianOperator`.
        process_group: Ranks of torch.distributed that each have a part of the data, as for `HessianOperator`.

    Returns:
        A `SharpnessReport`. A measure that cannot be computed for this model is NaN, with the reason in the notes.

    Raises:
        TypeError: ``model``, ``data`` or ``loss_fn`` is of a type that cannot be used.
        ValueError: The loss is not finite, the data are empty, the model has no trainable parameters, or an argument is
            out of range.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> report = sharpness_report(nn.Linear(2, 1), nn.MSELoss(), (x, torch.zeros(2, 1)))
        >>> round(report["trace", "weight"].value, 4), round(report["renyi_sharpness_1", "bias"].value, 4)
        (5.0, 0.0)
    """
    orders = check_reals("alphas", alphas, 0.0, allow_infinite=True)
    check_int("num_matvecs", num_matvecs)
    check_int("seed", seed, 0)
    everything = HessianOperator(
        model, loss_fn, data, reduction=reduction, batch_mass=batch_mass, process_group=process_group
    )
    H = _on_subset(everything, "num_samples", num_samples, seed)
    parts = _blocks(H, blocks)
    # Before the long computation: wrong initial parameters are a mistake of the caller, not a property of the model.
    initial = None if initial_parameters is None else initial_weights(H, initial_parameters)
    network = Network(H, _on_subset(everything, "perturbation_samples", perturbation_samples, seed), seed, initial)
    measures = measures_at(orders)
    per_block = [measure for measure in measures if measure.per_block]
    of_network = [measure for measure in measures if not measure.per_block]
    estimates: dict[Row, Estimate] = {}
    spectra: dict[str, Spectrum] = {}
    notes: dict[Row, str] = {}
    with progress_bar(1 + len(parts) + len(of_network), "measures", progress) as bar:
        for block in (WHOLE, *parts):
            # The operator of a block is made only now, so that only one graph is kept at a time.
            operator = H if block == WHOLE else H.restricted(params=parts[block])
            with _noted(notes, ("spectrum", block)):
                spectra[block] = estimate_spectrum(operator, num_matvecs=num_matvecs, seed=seed, progress=False)
            for measure in per_block:
                estimates[measure.name, block] = _attempt(measure, spectra[block], block, notes)
            bar.update()
        for measure in of_network:
            estimates[measure.name, WHOLE] = _attempt(measure, network, WHOLE, notes)
            bar.update()
    return SharpnessReport(estimates, spectra, notes, H.precision)


def _on_subset(operator: HessianOperator, name: str, num_samples: int | None, seed: int) -> HessianOperator:
    batches = random_subset(operator.batches, name, num_samples, seed, operator.ranks)
    if batches is operator.batches:
        return operator
    operator.check_samples(name)
    return operator.restricted(batches=batches)


def _blocks(
    operator: HessianOperator, blocks: bool | ParameterSelection | Mapping[str, ParameterSelection]
) -> dict[str, list[str]]:
    """Names of the parameters in each block, by the block's name."""
    if isinstance(blocks, Mapping):
        return block_parameters(operator.model, operator.parameter_names, blocks)
    names = operator.parameter_names if isinstance(blocks, bool) else select_parameters(operator.model, blocks)
    return {name: [name] for name in names} if blocks is not False else {}


def _attempt(measure: Measure, subject: Spectrum | Network, block: str, notes: dict[Row, str]) -> Estimate:
    """The measure, or NaN with the reason in the notes."""
    row = measure.name, block
    try:
        with _noted(notes, row):
            return measure.function(subject)
    except ValueError as error:
        notes[row] = str(error)
        return NAN


@restoring
def _noted(notes: dict[Row, str], row: Row) -> Iterator[None]:
    """Turn the warnings of the block into a note on the row."""
    with exclusive(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if caught:
        notes[row] = " ".join(dict.fromkeys(str(warning.message) for warning in caught))
