"""A `Spectrum` of an operator: exact from all products, or estimated from a limited number of them.

How the estimate works is described in `renyi_lab.spectrum._deep_shallow`, step by step, and its errors in
`renyi_lab.spectrum._errors`.
"""

from __future__ import annotations

import contextlib
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.progress import progress_bar
from renyi_lab._utils.threads import one_thread
from renyi_lab._utils.validation import check_flag, check_int, check_real, printed
from renyi_lab.krylov import Storage, Tridiagonal, check_reorthogonalize, lanczos_steps
from renyi_lab.operators import DENSE_LIMIT, LinearOperator, as_operator
from renyi_lab.spectrum._calibration import weigh
from renyi_lab.spectrum._data_groups import leaving_groups_out
from renyi_lab.spectrum._deep_shallow import fresh_probes, probe_plan, split_deep
from renyi_lab.spectrum._entropy import check_alpha
from renyi_lab.spectrum._errors import LOWEST_ORDER
from renyi_lab.spectrum._rule import QuadratureRule
from renyi_lab.spectrum._spectrum import Spectrum

NUM_MATVECS = 200
# With a target error: the largest default budget, and the products of the first estimate.
LARGEST_BUDGET, FIRST_ROUND = 2000, 100
# Rows up to which eigenvalues are computed on one thread (heuristic): on a busy machine two threads take three to five
# times as long (5.5 s against 1.8 s for 2,698 rows), and one takes few seconds at most.
_SMALL_MATRIX = 4096
# Added to a seed for random numbers that are independent of its other ones; torch uses the lower 32 bits.
_OTHER_STREAM = 0x9E3779B9


def exact_spectrum(operator: Any) -> Spectrum:
    """All eigenvalues of ``operator`` by a dense eigendecomposition in double precision; for small ``n``.

    Args:
        operator: A `HessianOperator`, a symmetric matrix, or any operator with ``.shape`` and ``@`` (SciPy,
            curvlinops). Costs ``n`` products and ``n²`` memory.

    Returns:
        An exact `Spectrum`. Eigenvalues below ``30·eps`` of the largest are rounding errors of the products; what
        depends on them has a standard error.

    Raises:
        ValueError: ``n`` is above 20,000, or an entry of the matrix is not finite.

    Example:
        >>> import torch
        >>> exact_spectrum(torch.diag(torch.tensor([2.0, 1.0]))).nodes.tolist()
        [1.0, 2.0]
    """
    with one_thread():
        matrix = as_operator(operator)
    dense = matrix.to_dense()
    with one_thread() if matrix.dim <= _SMALL_MATRIX else contextlib.nullcontext():
        dense = dense.cpu().double()
        if not dense.isfinite().all():
            raise ValueError("an entry of the matrix is not finite. Likely causes: diverged weights, NaN in the data.")
        eigenvalues = torch.linalg.eigvalsh((dense + dense.T) / 2)
    spectrum = Spectrum.from_eigenvalues(eigenvalues, num_matvecs=matrix.dim)
    return replace(spectrum, eps=matrix.eps)


def estimate_spectrum(
    operator: Any,
    *,
    num_matvecs: int | None = None,
    target_error: float | None = None,
    alpha: float | None = None,
    seed: int = 0,
    data_error: bool = False,
    basis: str = "device",
    basis_dtype: torch.dtype | None = None,
    reorthogonalize: str = "full",
    progress: bool | None = None,
) -> Spectrum:
    """Estimate the spectrum of a symmetric operator from a limited number of products.

    Three quarters of the products are made one after the other, in one Lanczos run; the others in batches, from
    independent probes. Memory: one vector for each product of the long run, three quarters of them, and about ten more;
    `ModelOperator.estimate_cost` says how much that is. ``basis``, ``basis_dtype`` and ``reorthogonalize`` reduce it.

    Args:
        operator: A `HessianOperator`, a symmetric matrix, or any operator with ``.shape`` and ``@`` (SciPy,
            curvlinops).
        num_matvecs: Largest number of products. From ``n`` on (up to 20,000) the spectrum is computed exactly instead.
            Default 200 (heuristic: errors of one or two hundredths of a nat on networks of a few thousand parameters);
            with ``target_error`` 2,000.
        target_error: Standard error of the entropy of order ``alpha``, in nats, positive. More products are spent
            until it is met: estimates with 100 products and with twice as many each time, all from one Lanczos run
            that goes on. If the budget ends before, a warning says what was reached.
        alpha: Order in ``[0.1, inf]`` that ``target_error`` is for; the spectrum serves all orders.
        seed: Random seed for the probes, at least 0. Results are reproducible to rounding (a relative 1e-7 in single
            precision); bit for bit after ``torch.set_num_threads(1)``.
        data_error: Whether standard errors cover the sample, too: how far the data's spectrum is from that of the
            distribution which they are a random sample of. It costs ten more spectra, each with a tenth of the samples
            left out, of as many products (on 9/10 of the data) from the same probes. See `Estimate.data_error`; the
            values do not change. For operators of a model with data, such as `HessianOperator`, and with
            ``num_matvecs``.
        basis: Where the vectors are kept: ``"device"``, that of the operator; ``"cpu"``, the host's memory;
            ``"sharded"``, a part of each on every rank of the operator's process group. The estimate is the same to
            rounding.
        basis_dtype: Data type in which they are kept, no wider than the operator's. ``torch.bfloat16`` halves the
            memory of single precision; the page "Where Lanczos vectors are kept" has the errors.
        reorthogonalize: ``"full"``: every vector is made orthogonal to all before it. ``"none"``: the three-term
            recurrence, which keeps no vectors; no eigenvalue can then be counted, so standard errors are larger.
        progress: Whether to show a progress bar. Default: only in a terminal or notebook.

    Returns:
        A `Spectrum` whose quantities have standard errors.

    Raises:
        ValueError: ``num_matvecs < 1``, only one of ``target_error`` and ``alpha``, or a product that is not finite;
            ``data_error`` with a ``target_error``, or with fewer than 4 samples; a basis that the operator cannot have,
            or that does not fit into memory.
        TypeError: ``data_error`` for a matrix, which holds no data.

    Example:
        >>> H = torch.diag(torch.linspace(0.0, 1.0, 500))
        >>> spectrum = estimate_spectrum(H, num_matvecs=60)
        >>> abs(float(spectrum.trace) - 250) < 3 * spectrum.trace.standard_error
        True
        >>> estimate_spectrum(H, target_error=0.02, alpha=1.5).renyi_entropy(1.5).standard_error < 0.02
        True
    """
    matrix = as_operator(operator)
    keeping = _Keeping(basis, basis_dtype, reorthogonalize).checked(matrix)
    if num_matvecs is None:
        num_matvecs = NUM_MATVECS if target_error is None else LARGEST_BUDGET
    budget = check_int("num_matvecs", num_matvecs)
    check_int("seed", seed, 0)
    if progress is not None:
        check_flag("progress", progress)
    if not isinstance(data_error, bool):
        raise TypeError(f"data_error must be True or False, got {printed(data_error)}; a wanted error is target_error.")
    parts = leaving_groups_out(matrix, seed) if data_error else []
    if (target_error is None) != (alpha is None):
        raise ValueError("target_error and alpha belong together: pass both, such as target_error=0.01, alpha=1.5.")
    if target_error is not None and alpha is not None:
        target = check_real("target_error", target_error, 0.0, open_minimum=True)
        if data_error:
            raise ValueError(
                "data_error=True needs num_matvecs, since all its spectra have equally many products; take the "
                "num_matvecs of the spectrum that target_error gave."
            )
        order = check_alpha(alpha)
        if order < LOWEST_ORDER:
            raise ValueError(
                f"alpha={order:g} counts non-zero eigenvalues, which no number of products determines; use 0.5."
            )
        return _until(matrix, budget, target, order, seed, keeping, progress)
    operators = [matrix, *(part for part, _ in parts)]
    if matrix.dim <= min(budget, DENSE_LIMIT):
        spectra = [exact_spectrum(part) for part in operators]
    else:
        with progress_bar(budget * len(operators), "Hessian products", progress) as bar:
            spectra = [_Run(part, budget, seed, keeping, bar.update).estimate(budget) for part in operators]
    scales = [scale for _, scale in parts]
    rules = [QuadratureRule(s.nodes * scale, s.weights, s.dim) for s, scale in zip(spectra[1:], scales, strict=True)]
    total = sum(spectrum.num_matvecs for spectrum in spectra)
    return replace(spectra[0], num_matvecs=total, leaving_out=tuple(rules))


@dataclass(frozen=True)
class _Keeping:
    """Which Lanczos vectors are kept, as the arguments of `estimate_spectrum`."""

    basis: str
    dtype: torch.dtype | None
    reorthogonalize: str

    def checked(self, matrix: LinearOperator) -> _Keeping:
        """Return self when ``matrix`` allows it or raise."""
        Storage.of_options(matrix, self.basis, self.dtype)
        check_reorthogonalize(self.reorthogonalize)
        return self

    def steps(self, matrix: LinearOperator, num_steps: int | None, seed: int) -> Iterator[Tridiagonal]:
        """The deep run."""
        if check_reorthogonalize(self.reorthogonalize):
            return lanczos_steps(
                matrix, num_steps=num_steps, seed=seed, restart=True, basis=self.basis, basis_dtype=self.dtype
            )
        return lanczos_steps(matrix, num_steps=num_steps, seed=seed, reorthogonalize="none", basis=None)


class _Run:
    """A deep run that can go on, and the spectra that it gives with shallow runs of their own.

    Args:
        matrix: The operator.
        budget: Products that the run will have; ``None``: not known in advance, so memory grows with them.
        seed: Random seed.
        keeping: Which vectors are kept.
        on_products: Called with the number of products made.
    """

    def __init__(
        self,
        matrix: LinearOperator,
        budget: int | None,
        seed: int,
        keeping: _Keeping,
        on_products: Callable[[int], object],
    ) -> None:
        num_steps = None if budget is None else budget - sum(probe_plan(budget))
        self._steps = keeping.steps(matrix, num_steps, seed)
        self._generator = torch.Generator().manual_seed(seed + _OTHER_STREAM)
        self._matrix, self._on_products = matrix, on_products
        self._num_steps, self.spent = 0, 0

    def cost(self, num_matvecs: int) -> int:
        """Products that the estimate of a run of ``num_matvecs`` products still costs."""
        plan = sum(probe_plan(num_matvecs))
        return max(0, num_matvecs - plan - self._num_steps) + plan

    def affordable(self, num_matvecs: int, left: int) -> int:
        """The largest run, of at most ``num_matvecs`` products, whose estimate costs at most ``left``; at least 1."""
        most = min(num_matvecs, self._matrix.dim - 1)
        return max(1, bisect_right(range(1, most + 1), left, key=self.cost))

    def estimate(self, num_matvecs: int) -> Spectrum:
        """The spectrum that a run of ``num_matvecs`` products gives; shallow runs of earlier ones are not used."""
        plan = probe_plan(num_matvecs)
        with self._matrix.unchanged():
            while self._num_steps < num_matvecs - sum(plan):
                step = next(self._steps, None)
                if step is None:  # without re-orthogonalization: the Krylov space is exhausted, and its rule exact
                    break
                self._run = step
                self._num_steps += 1
                self._count(1)
            eps = max(self._matrix.eps, 0.0 if self._run.vectors is None else self._run.vectors.rounding)
            deep = split_deep(self._run, self._matrix.dim, eps, count=bool(plan))
            shallow = fresh_probes(self._matrix, deep, plan, self._generator, self._count) if plan else None
        rule, sampling = weigh(deep, shallow)
        return Spectrum(rule.nodes, rule.weights, rule.dim, self.spent, sampling)

    def _count(self, products: int) -> None:
        self.spent += products
        self._on_products(products)


def _until(
    matrix: LinearOperator,
    budget: int,
    target: float,
    alpha: float,
    seed: int,
    keeping: _Keeping,
    progress: bool | None,
) -> Spectrum:
    """Estimates with more and more products until the error is met; the exact spectrum where that is cheaper."""
    size, dim, spectrum, hidden = FIRST_ROUND, matrix.dim, None, False
    with progress_bar(budget, "Hessian products", progress) as bar:
        run = _Run(matrix, None, seed, keeping, bar.update)
        while True:
            cost, left = run.cost(size), budget - run.spent
            exact = dim <= min(left, DENSE_LIMIT)
            if exact and (cost >= dim or cost + dim > left):
                return replace(exact_spectrum(matrix), num_matvecs=run.spent + dim)
            # A last round that is hardly longer than the one before would change little.
            if spectrum is not None and (hidden or run.affordable(size, left) < 0.6 * size):
                break
            size = run.affordable(size, left)
            spectrum = run.estimate(size)
            with exclusive(), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # they judge an error that is still being reduced
                entropy = spectrum.renyi_entropy(alpha)
            if entropy.standard_error <= target:
                return spectrum
            hidden = entropy.rounding_error > target and not exact
            size *= 2
    advice = "rounding hides small eigenvalues: use double precision" if hidden else "use a larger num_matvecs"
    warnings.warn(
        f"target_error={target:g} was not met with {spectrum.num_matvecs} products: the entropy of order {alpha:g} "
        f"has a standard error of {entropy.standard_error:.2g}; {advice}.",
        stacklevel=3,
    )
    return spectrum
