"""Operators without one group of samples each: what the part of standard errors that is due to the data needs."""

from __future__ import annotations

from renyi_lab.operators import LinearOperator, ModelOperator, without_groups

# Heuristic: with ten, the jackknife's error has nine degrees of freedom and costs as much as nine spectra of all data.
NUM_GROUPS, FEWEST_SAMPLES = 10, 4
# Added to a seed, so that groups do not depend on the probes.
_STREAM = 0x5EED


def leaving_groups_out(operator: LinearOperator, seed: int) -> list[tuple[ModelOperator, float]]:
    """The operator without each of up to ten random groups of its samples, and what its matrix is to be scaled by.

    Args:
        operator: The operator of all samples.
        seed: Random seed of the groups.

    Raises:
        TypeError: The operator is not one of a model with data.
        ValueError: There are fewer than 4 samples, batches of samples that cannot be taken apart, or no loss without
            one of the groups, as where it holds the only labels that are not ignored.
    """
    if not isinstance(operator, ModelOperator):
        raise TypeError(
            f"data_error=True needs an operator of a model with its data, such as a HessianOperator, got "
            f"{type(operator).__name__}, whose samples are not known."
        )
    batches = operator.batches
    if operator.num_samples < FEWEST_SAMPLES:
        raise ValueError(f"data_error=True needs at least {FEWEST_SAMPLES} samples, got {operator.num_samples}.")
    operator.check_samples("data_error=True")
    parts = without_groups(batches, NUM_GROUPS, seed + _STREAM, operator.ranks)
    if len(parts) < FEWEST_SAMPLES:
        raise ValueError(
            f"data_error=True leaves out groups of samples, but those of the {len(batches)} batches cannot be taken "
            f"apart; pass smaller batches, at least {FEWEST_SAMPLES}."
        )
    try:
        operators = [operator.restricted(batches=part) for part in parts]
    except ValueError as error:
        raise ValueError(f"data_error=True cannot leave a group of samples out, since without it {error}") from error
    # A sum over the data grows with their number, a mean does not.
    return [
        (part, operator.num_samples / part.num_samples if operator.reduction == "sum" else 1.0) for part in operators
    ]
