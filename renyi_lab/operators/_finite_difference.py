r"""Products with a Hessian from differences of gradients, for models that cannot be differentiated twice.

    H v = [∇L(θ + h v) − ∇L(θ − h v)] / 2h + O(h²) ,      h = c ε^{1/3} ‖θ‖ / ‖v‖

The error is one of rounding, which grows as ``ε/h``, and one of truncation, which grows as ``h²``. Their sum is least
near ``ε^{1/3}`` times the length at which the third derivative matters, which is far below that of the weights:
measured along the eigenvectors of large eigenvalues (multilayer perceptrons, convolutional networks and attention with
ReLU, tanh and GELU, trained or not, in both precisions), the best step of smooth networks is ``ε^{1/3} ‖θ‖ / 100``
within a factor of eight, while along random vectors it is up to a hundred times as long. So the step is looked for
around that value.

Source:
    Pearlmutter 1994, *Fast exact multiplication by the Hessian*, section 2; Dennis & Schnabel 1996, *Numerical Methods
    for Unconstrained Optimization*, section 5.6.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from renyi_lab._utils.parameters import whole
from renyi_lab._utils.validation import check_finite
from renyi_lab.operators._kept_graphs import NOT_SYMMETRIC
from renyi_lab.operators._loss_surface import LossSurface
from renyi_lab.operators._model import ModelOperator
from renyi_lab.operators._symmetric_products import SymmetricProducts

_STEP = 0.01  # c, see above
_RATIO = 4.0  # of neighbouring steps, of which the longest is 4 times _STEP
_FEWEST, _MOST = 4, 8  # shorter ones that are tried
_IMPRECISE = 1e-2  # heuristic: from here on a warning; smooth networks have 1e-3 in single precision
_ODD = 10.0  # heuristic: asymmetry, relative to the known error, that is no rounding, which is less than 1

_WARNING = (
    "products by finite differences have a relative error of {:.1g} (of ‖H‖‖v‖). The gradient jumps where a ReLU or a "
    "maximum switches within the step, the arithmetic is too coarse, or some operation has a gradient that is not its "
    'derivative. Compute in double precision (model.double()), use method="double_backward", or smooth activations.'
)


class FiniteDifferences:
    """Products with the Hessian of an operator's loss at the weights that it has now, and their error.

    The step and the error are measured at construction, by eighteen gradients or a few more, on a mixture of a random
    vector and one that is near the eigenvectors of large eigenvalues: products for steps ``s`` and ``4s`` differ by the
    rounding of one and the truncation of the other; their difference is least where both are small.

    Args:
        operator: The operator; gradients of its loss are taken.
        rounding: Relative rounding error of its gradients.

    Attributes:
        error: Relative error of a product, the length of its error over ``‖H‖ ‖v‖``. It grows when a later product does
            not agree with those before as those of a symmetric matrix do.

    Raises:
        RuntimeError: Products that no symmetric matrix has.
        ValueError: A gradient near the weights is not finite.
    """

    def __init__(self, operator: ModelOperator, rounding: float) -> None:
        self._surface = LossSurface(operator)
        self._rounding = rounding
        self._step = _STEP * self._rounding ** (1 / 3) * _typical_length(operator)
        self._products = SymmetricProducts()
        self.error, self._size, self._warned = self._rounding, 1.0, False
        self._measure(_random_unit_vector(operator))

    def is_at(self, weights: Tensor) -> bool:
        """Whether these are the weights, ``(n,)``, that step and error belong to."""
        return torch.equal(self._surface.start, weights)

    def product(self, vector: Tensor) -> Tensor:
        """``H v``, by two gradients."""
        product = self._difference(vector, self._step)
        asymmetry = self._products.asymmetry(vector, product)
        if asymmetry > _ODD * self.error:  # the gradient jumps inside the step, perhaps not inside a shorter one
            again = self._difference(vector, self._step / _RATIO)
            if self._products.asymmetry(vector, again) > _ODD * self.error:
                gap = float(torch.linalg.vector_norm(again - product) / torch.linalg.vector_norm(vector))
                self._note(max(asymmetry, gap / self._size))
            product = again
        self._products.remember(vector, product)
        return product

    def _note(self, error: float) -> None:
        self.error = max(error, self.error)
        if error > _IMPRECISE and not self._warned:
            self._warned = True
            warnings.warn(_WARNING.format(error), stacklevel=2)

    def _difference(self, vector: Tensor, step: float) -> Tensor:
        length = float(torch.linalg.vector_norm(vector))
        if length == 0.0:
            return torch.zeros_like(vector)
        move = vector * (step / length)
        ahead = self._surface.loss_and_gradient(self._surface.start + move)[1]
        behind = self._surface.loss_and_gradient(self._surface.start - move)[1]
        return (ahead - behind).mul_(length / (2 * step))

    def _measure(self, random: Tensor) -> None:
        image = self._checked(random, self._step)
        for _ in range(2):  # the power method
            if not bool(image.any()):
                return
            top = image / torch.linalg.vector_norm(image)
            image = self._checked(top, self._step)
        mixed = (top + random) / torch.linalg.vector_norm(top + random)
        product, gap = self._choose_step(mixed)
        length = float(torch.linalg.vector_norm(product))
        top = product / length
        image = self._checked(top, self._step)
        size = max(length, float(torch.linalg.vector_norm(image)))
        error = max(gap / size, self._rounding)
        if error < _IMPRECISE and abs(float(torch.dot(mixed, image)) - length) > (_IMPRECISE + error) * size:
            raise RuntimeError(NOT_SYMMETRIC)
        self._products = SymmetricProducts(size)
        self._size = size
        self._note(error)

    def _choose_step(self, vector: Tensor) -> tuple[Tensor, float]:
        """Set the step; return the product with ``vector`` and the length of its error."""
        step = self._step * _RATIO
        before, best, tried = self._checked(vector, step), (math.inf, step, vector), 0
        while tried < _FEWEST or (tried < _MOST and best[1] == step):  # it goes on improving
            step, tried = step / _RATIO, tried + 1
            product = self._checked(vector, step)
            gap = float(torch.linalg.vector_norm(product - before))
            if gap < best[0]:
                best = gap, step, product
            before = product
        self._step = best[1]
        return best[2], best[0]

    def _checked(self, vector: Tensor, step: float) -> Tensor:
        cause = f"the loss or its gradient overflows at a distance of {step:.1g} from the weights."
        difference = self._difference(vector, step)
        check_finite("a difference of gradients", difference, cause)
        return difference


def _random_unit_vector(operator: ModelOperator) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(0)
    vector = torch.randn(operator.dim, generator=generator, device="cpu").to(operator.device, operator.dtype)
    return vector.div_(torch.linalg.vector_norm(vector))


def _typical_length(operator: ModelOperator) -> float:
    """The length of so many of the model's weights; a block alone, such as new biases, may well be zero."""
    weights = [parameter.detach() for parameter in operator.model.parameters() if parameter.requires_grad]
    squares = math.fsum(float(whole(torch.linalg.vector_norm(part))) ** 2 for part in weights)
    return math.sqrt(squares * operator.dim / sum(part.numel() for part in weights)) or 1.0
