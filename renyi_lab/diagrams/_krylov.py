"""The Krylov space and tridiagonalization; the matrices are those of a Lanczos run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from renyi_lab._utils.figure import BLUE, GREEN, ORANGE, NotebookFigure
from renyi_lab._utils.typing import FloatArray
from renyi_lab.diagrams._drawing import SMALL, TITLE, Point, arrow, canvas, label, matrix
from renyi_lab.krylov import lanczos
from renyi_lab.operators import matrix_with_spectrum

ALT = (
    "Diagram. Left: the vectors v, Av and A²v turn towards one direction; made orthonormal they are q1, q2 and q3, at "
    "right angles. Right: Q times a full 10 by 10 matrix A times Q transposed is a 5 by 5 matrix T that is zero except "
    "on the diagonal and beside it, because A q_j has components along q_(j−1), q_j and q_(j+1) only."
)
DIM, NUM_STEPS = 10, 5
# Where q1, q2 and q3 point on paper, and v, Av and A²v in terms of them.
FRAME = np.array([[0.98, -0.12], [0.0, 1.0], [-0.5, -0.42]])
POWERS = np.array([[1.0, 0.0, 0.0], [1.0, 0.55, 0.0], [1.0, 1.15, 0.45]])


def krylov() -> NotebookFigure:
    """Draw how ``v, Av, A²v, …`` become an orthonormal basis in which ``A`` is tridiagonal, ``T = Q A Qᵀ``.

    Filled cells are the nonzero entries of the matrices of a Lanczos run.

    Returns:
        The figure; its ``alt`` describes it.

    Source:
        Golub & Meurant 2010, chapter 4.

    Example:
        >>> figure = krylov()
        >>> "tridiagonal" in " ".join(text.get_text() for text in figure.axes[0].texts)
        True
    """
    figure, ax = canvas(9.0, 3.3, ALT)
    label(ax, (1.95, 3.05), "a basis of the Krylov space", size=TITLE)
    unit = POWERS / np.linalg.norm(POWERS, axis=1, keepdims=True)
    _vectors(ax, (0.3, 1.25), unit, ("$v$", "$Av$", "$A^2v$"), BLUE)
    arrow(ax, (1.62, 1.75), (2.3, 1.75))
    label(ax, (1.96, 1.92), "orthonormalize", size=SMALL)
    _vectors(ax, (2.65, 1.25), np.eye(3), ("$q_1$", "$q_2$", "$q_3$"), GREEN)
    label(
        ax,
        (1.95, 0.42),
        "powers turn towards one direction;\northonormal vectors span the same space",
        size=SMALL,
    )

    label(ax, (6.3, 3.05), "in this basis the matrix is tridiagonal", size=TITLE)
    _product(ax, left=3.8, top=2.55)
    return figure


def _vectors(ax: Axes, origin: Point, vectors: FloatArray, names: Sequence[str], color: str) -> None:
    for vector, name in zip(vectors, names, strict=True):
        tip, beyond = (np.add(origin, length * vector @ FRAME) for length in (1.0, 1.14))
        arrow(ax, origin, (tip[0], tip[1]), color=color, linewidth=1.8)
        label(ax, (beyond[0], beyond[1]), name)


def _product(ax: Axes, left: float, top: float) -> None:
    """``Q A Qᵀ = T``, with one column of ``T`` marked."""
    full = matrix_with_spectrum(np.linspace(0.1, 1.0, DIM))
    run = lanczos(full, num_steps=NUM_STEPS)
    basis, cell = run.basis.numpy(), 0.13
    tridiagonal = basis @ full.numpy() @ basis.T
    for name, symbol, note, entries, color in (
        ("Q", "$Q$", "rows $q_1$ … $q_m$", basis, GREEN),
        ("A", "$A$", "$n$ rows, full", full.numpy(), BLUE),
        ("QT", r"$Q^\top$", "", basis.T, GREEN),
        ("T", "$T$", "", tridiagonal, ORANGE),
    ):
        if name == "T":
            label(ax, (left + 0.1, top - 0.5), "=", size=TITLE + 3)
            left, cell = left + 0.3, 0.2
        rows, columns = entries.shape
        matrix(ax, (left, top), cell, np.abs(entries) > 1e-9, color=color, name=name)
        label(ax, (left + columns * cell / 2, top + 0.13), symbol)
        label(ax, (left + columns * cell / 2, top - rows * cell - 0.13), note, size=SMALL)
        left += columns * cell + 0.1
    right, bottom = left - 0.1, top - NUM_STEPS * cell
    column = right - 3 * cell
    ax.add_patch(Rectangle((column, bottom), cell, NUM_STEPS * cell, fill=False, edgecolor="black", lw=1.8, zorder=4))
    for row, name in enumerate(("$j-1$", "$j$", "$j+1$"), start=1):
        label(ax, (right + 0.06, top - (row + 0.5) * cell), name, size=SMALL, ha="left")
    label(
        ax,
        (8.85, 0.42),
        "column $j$ of $T$: $A q_j$ touches only\n$q_{j-1}$, $q_j$ and $q_{j+1}$",
        size=SMALL,
        ha="right",
    )
    arrow(ax, (column + cell / 2, 0.72), (column + cell / 2, bottom - 0.04))
