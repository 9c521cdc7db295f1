"""Does a measure keep the sign of its correlation from one family of networks, and one data set, to the next?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from renyi_lab.study._correlations import ALPHAS
from renyi_lab.study._study import Study


def tau_by_family(
    studies: Mapping[str, Study], gap: str = "loss", *, alphas: Sequence[float] = ALPHAS, seed: int = 0
) -> pd.DataFrame:
    """Kendall's τ of every measure of the whole network, within each architecture of each study.

    Args:
        studies: Mapping from the name of a data set to its study. A study from a frame without a column
            ``architecture`` counts as one architecture, ``"all"``.
        gap: ``"loss"`` or ``"error"``, as for `Study.kendall`.
        alphas: Orders of Rényi sharpness, as for `Study.kendall`.
        seed: Random seed for the bootstrap.

    Returns:
        Table with one row per measure, data set and architecture (the index), and the columns ``tau``, ``low``,
        ``high`` (95 % interval over settings), ``num_models`` and ``num_settings``. It has only the measures that all
        of them share.

    Raises:
        TypeError: ``studies`` is not a mapping to studies.
        ValueError: ``studies`` is empty, an architecture has no model at a minimum, the studies share no measure, or an
            argument is out of range.

    Example:
        >>> table = tau_by_family({"mnist1d": Study.standard()})
        >>> bool(table.loc[("renyi_sharpness_1.5", "mnist1d", "mlp"), "low"] > 0)
        True
    """
    if not isinstance(studies, Mapping) or not all(isinstance(study, Study) for study in studies.values()):
        raise TypeError(
            f"studies must map names to studies, as in {{'mnist1d': Study.standard()}}, got {type(studies).__name__}."
        )
    if not studies:
        raise ValueError("studies is empty; pass at least one, as in {'mnist1d': Study.standard()}.")
    tables = {
        (name, family): part.kendall(gap, alphas=alphas, seed=seed)
        for name, study in studies.items()
        for family, part in _families(name, study).items()
    }
    first, *others = tables.values()
    shared = [measure for measure in first.index if all(measure in table.index for table in others)]
    measures = [measure for measure in shared if " [" not in measure]
    if not measures:
        raise ValueError("the studies share no measure of the whole network; give the same measure the same name.")
    columns = ["tau", "low", "high", "num_models", "num_settings"]
    rows: dict[Any, Any] = {
        (measure, *part): table.loc[measure, columns] for measure in measures for part, table in tables.items()
    }
    frame = pd.DataFrame(rows).T.rename_axis(["measure", "data set", "architecture"])
    return frame.astype({name: "int64" if name.startswith("num_") else "float64" for name in columns})


def sign_table(
    studies: Mapping[str, Study], gap: str = "loss", *, alphas: Sequence[float] = ALPHAS, seed: int = 0
) -> pd.DataFrame:
    """Which measures keep the sign of Kendall's τ in every architecture of every study.

    Args:
        studies: As for `tau_by_family`.
        gap: As for `tau_by_family`.
        alphas: As for `tau_by_family`.
        seed: As for `tau_by_family`.

    Returns:
        Table with one row per measure of the whole network and the columns ``smallest`` and ``largest`` (τ), ``sign``
        (``"+"`` or ``"−"`` where every τ has that sign, otherwise ``"mixed"``), ``certain`` (whether, besides, every
        95 % interval excludes 0), ``positive`` and ``negative`` (numbers of parts whose interval excludes 0 on that
        side) and ``num_parts``.

    Raises:
        TypeError: As for `tau_by_family`.
        ValueError: As for `tau_by_family`.

    Example:
        >>> sign_table({"mnist1d": Study.standard().select(architecture="mlp")}).loc["trace", "sign"]
        '−'
    """
    taus = tau_by_family(studies, gap, alphas=alphas, seed=seed)
    rows = {measure: _signs(part) for measure, part in taus.groupby(level="measure", sort=False)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("measure")


def _families(name: str, study: Study) -> dict[str, Study]:
    """The part of a study for each architecture; a frame without such a column is one part."""
    if not study.records:
        raise ValueError(f"study {name!r} has no records; leave it out.")
    families = dict.fromkeys(record.axes.get("architecture") for record in study.records)
    parts = {
        "all" if family is None else str(family): study if family is None else study.select(architecture=family)
        for family in families
    }
    for family, part in parts.items():
        if not part.kept:
            raise ValueError(
                f"study {name!r} has no model of architecture {family!r} at a minimum; leave these out with "
                "study.select(architecture=...), or lower the threshold with study.with_minimum(...)."
            )
    return parts


def _signs(rows: pd.DataFrame) -> dict[str, Any]:
    tau, count = rows["tau"], len(rows)
    positive, negative = int((rows["low"] > 0).sum()), int((rows["high"] < 0).sum())
    return {
        "smallest": tau.min(),
        "largest": tau.max(),
        "sign": "+" if (tau > 0).all() else "−" if (tau < 0).all() else "mixed",
        "certain": count in (positive, negative),
        "positive": positive,
        "negative": negative,
        "num_parts": count,
    }
