"""All measures of one network in one table."""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from renyi_lab._utils.estimate import Estimate
from renyi_lab._utils.parameters import ParameterSelection, select_parameters
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.validation import check_int, check_reals
from renyi_lab.operators import HessianOperator, random_subset
from renyi_lab.sharpness import _norms, _outputs, _perturbed, _spectral
from renyi_lab.spectrum import Spectrum, estimate_spectrum

if TYPE_CHECKING:
    import pandas as pd

WHOLE = "whole"
NAN = Estimate(math.nan, math.nan)
Notes = dict[str, str]


@dataclass(frozen=True, repr=False, eq=False)
class SharpnessReport:
    """Every measure of one network, of the whole and of its blocks.

    Attributes:
        estimates: By ``(measure, block)``; NaN where a measure could not be computed, with the reason in ``notes``.
        spectra: By block name, and that of the whole network as ``"whole"``.
        notes: What to know about single rows, by measure (and block).
    """

    estimates: Mapping[tuple[str, str], Estimate]
    spectra: Mapping[str, Spectrum]
    notes: Mapping[str, str]

    def __getitem__(self, key: str | tuple[str, str]) -> Estimate:
        """``report["trace"]`` of the whole network, ``report["trace", "layer1.weight"]`` of a block."""
        measure, block = (key, WHOLE) if isinstance(key, str) else key
        try:
            return self.estimates[measure, block]
        except KeyError:
            measures, blocks = (list(dict.fromkeys(part)) for part in zip(*self.estimates, strict=True))
            raise KeyError(f"no {measure!r} of {block!r}; measures: {measures}; blocks: {blocks}") from None

    def to_frame(self) -> pd.DataFrame:
        """One row for each number, with columns ``measure``, ``block``, ``value`` and ``standard_error``."""
        import pandas as pd

        rows = [(*key, estimate.value, estimate.standard_error) for key, estimate in self.estimates.items()]
        return pd.DataFrame(rows, columns=["measure", "block", "value", "standard_error"])

    def table(self) -> pd.DataFrame:
        """One row a measure, one column a block; values only."""
        frame = self.to_frame()
        order = [list(dict.fromkeys(frame[column])) for column in ("measure", "block")]
        return frame.pivot(index="measure", columns="block", values="value").reindex(index=order[0], columns=order[1])

    def _note_lines(self) -> list[str]:
        """One line for each different note, after the names of all rows that it is about."""
        about: dict[str, list[str]] = {}
        for key, note in self.notes.items():
            about.setdefault(note, []).append(key)
        return [f"{'; '.join(keys)}: {note}" for note, keys in about.items()]

    def __repr__(self) -> str:
        table = self.table().to_string(float_format="{:.4g}".format, na_rep="")
        return "\n".join([table, *self._note_lines()])

    def _repr_html_(self) -> str:
        table = str(self.table().to_html(float_format="{:.4g}".format, na_rep=""))
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in self._note_lines())
        return table + (f"<ul>{notes}</ul>" if notes else "")


def sharpness_report(
    model: nn.Module,
    loss_fn: Callable[..., Tensor],
    data: Any,
    *,
    alphas: Sequence[float] = (0.5, 1.0, 1.5, 2.0),
    num_matvecs: int = 200,
    seed: int = 0,
    initial_parameters: Mapping[str, Tensor] | Iterable[Tensor] | None = None,
    blocks: bool | ParameterSelection = True,
    num_samples: int | None = None,
    perturbation_samples: int | None = 1024,
    progress: bool | None = None,
) -> SharpnessReport:
    """Measure a network's sharpness in every way that `MEASURES` lists; the model is left bit for bit as it was.

    Args:
        model: Any module with trainable parameters; measured in evaluation mode.
        loss_fn: As for `HessianOperator`: ``loss_fn(model(x), y)``, or ``loss_fn(model, batch)`` for other batches.
        data: As for `HessianOperator`; a loader's batches are frozen once.
        alphas: Orders of Rényi sharpness. Default: those of the course, the paper's 0.5 and 1.5 among them.
        num_matvecs: Products for each spectrum (a block that has fewer rows takes as many). Default 200: that of
            `estimate_spectrum`.
        seed: Of probes, noise, starting points and subsets.
        initial_parameters: State dict (a copy) or list of tensors from before training, for the distance from
            initialisation; ``None``: that row is NaN.
        blocks: ``True``: spectra of every parameter tensor too; ``False``: of the whole network only; or names and
            globs as in `HessianOperator`'s ``params``, such as ``"*.weight"``.
        num_samples: Spectra, gradient and norms on a random subset of so many samples; ``None``: all.
        perturbation_samples: The same for what perturbs the weights. Default 1024: Andriushchenko et al. 2023.
        progress: Show a bar; default: if a person is likely to watch.

    Returns:
        A `SharpnessReport`. What cannot be computed for this model is NaN, with the reason in its notes.

    Raises:
        ValueError: A loss that is not finite, empty data, a model without trainable parameters, an argument out of
            range.
        TypeError: ``model``, ``data`` or ``loss_fn`` of a kind that cannot be used.

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
    everything = HessianOperator(model, loss_fn, data)
    H = _on_subset(everything, "num_samples", num_samples, seed)
    names = _block_names(H, blocks)
    small = _on_subset(everything, "perturbation_samples", perturbation_samples, seed)
    estimates: dict[tuple[str, str], Estimate] = {}
    spectra: dict[str, Spectrum] = {}
    notes: Notes = {}
    # Before the long computation, since a wrong initialisation is the caller's mistake and no property of the model.
    distance = None if initial_parameters is None else _norms.distance_from_initialization(H, initial_parameters)
    single = _single_measures(H, small, distance, seed)
    with progress_bar(1 + len(names) + len(single), "measures", progress) as bar:
        for block in (WHOLE, *names):
            # A block's operator is made when its turn comes, so that only one graph is kept at a time.
            operator = H if block == WHOLE else H.restricted(params=block)
            spectra[block] = _spectrum(operator, num_matvecs, seed, notes, block)
            for measure, function in _spectral_measures(spectra[block], orders).items():
                estimates[measure, block] = _attempt(
                    function, notes, measure if block == WHOLE else f"{measure}, {block}"
                )
            bar.update()
        for measure, function in single.items():
            estimates[measure, WHOLE] = _attempt(function, notes, measure)
            bar.update()
    return SharpnessReport(estimates, spectra, notes)


def _on_subset(operator: HessianOperator, name: str, num_samples: int | None, seed: int) -> HessianOperator:
    batches = random_subset(operator.batches, name, num_samples, seed)
    return operator if batches is operator.batches else operator.restricted(batches=batches)


def _block_names(operator: HessianOperator, blocks: bool | ParameterSelection) -> list[str]:
    if isinstance(blocks, bool):
        return list(operator.parameter_names) if blocks else []
    return list(select_parameters(operator.model, blocks))


def _spectrum(operator: HessianOperator, num_matvecs: int, seed: int, notes: Notes, block: str) -> Spectrum:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        spectrum = estimate_spectrum(operator, num_matvecs=num_matvecs, seed=seed, progress=False)
    notes.update({f"spectrum, {block}": str(warning.message) for warning in caught})
    return spectrum


def _spectral_measures(spectrum: Spectrum, orders: Sequence[float]) -> dict[str, Callable[[], Estimate]]:
    measures: dict[str, Callable[[], Estimate]] = {
        f"renyi_sharpness_{alpha:g}": partial(_spectral.renyi_sharpness, spectrum, alpha) for alpha in orders
    }
    for function in (_spectral.trace, _spectral.lambda_max, _spectral.frobenius_norm, _spectral.log_determinant):
        measures[function.__name__] = partial(function, spectrum)
    return measures


def _single_measures(
    H: HessianOperator, small: HessianOperator, distance: Estimate | None, seed: int
) -> dict[str, Callable[[], Estimate]]:
    """The measures of the whole network alone; ``small`` is for those that evaluate the loss many times."""
    measures: dict[str, Callable[[], Estimate]] = {
        "gradient_norm": partial(_norms.gradient_norm, H),
        "parameter_norm": partial(_norms.parameter_norm, H),
        "distance_from_initialization": partial(_distance, distance),
        "fisher_rao_norm": partial(_outputs.fisher_rao_norm, H),
        "relative_flatness": partial(_outputs.relative_flatness, H),
        "pac_bayes_flatness": partial(_perturbed.pac_bayes_flatness, small, seed=seed),
        "pac_bayes_flatness_magnitude_aware": partial(
            _perturbed.pac_bayes_flatness, small, magnitude_aware=True, seed=seed
        ),
    }
    for norm in ("l2", "linf"):
        measures[f"sam_sharpness_{norm}"] = partial(_perturbed.sam_sharpness, small, norm=norm, seed=seed)
    for norm in ("l2", "linf"):
        measures[f"asam_sharpness_{norm}"] = partial(_perturbed.asam_sharpness, small, norm=norm, seed=seed)
    measures["average_case_sharpness"] = partial(_perturbed.average_case_sharpness, small, seed=seed)
    return measures


def _distance(distance: Estimate | None) -> Estimate:
    if distance is None:
        raise ValueError("no initial_parameters were given; pass a copy of the state dict from before training.")
    return distance


def _attempt(function: Callable[[], Estimate], notes: Notes, key: str) -> Estimate:
    """The measure, or NaN with the reason noted; remarks that it makes as warnings are noted too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimate = function()
        except ValueError as error:
            notes[key] = str(error)
            return NAN
    if caught:
        notes[key] = str(caught[0].message)
    return estimate
