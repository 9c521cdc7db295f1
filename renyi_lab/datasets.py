"""Small data sets that are generated under a seed or bundled: no downloads, no files written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import rotate
from torch import Tensor
from torch.utils.data import TensorDataset

from renyi_lab._utils.optional import optional_import
from renyi_lab._utils.random import preserved_rng
from renyi_lab._utils.validation import check_choice, check_int, check_real, check_reals

_LARGEST_NUMPY_SEED = 2**32 - 1
_MOST_DOMAINS = 100  # 17 images in each
_ANGLE_DIGITS = 9  # of a degree: closer angles are one rotation


def mnist1d(
    *, num_samples: int = 5000, max_translation: int = 48, corr_noise_scale: float = 0.25, seed: int = 42
) -> tuple[TensorDataset, TensorDataset]:
    """MNIST-1D: ten digit profiles, padded, scaled, translated, sheared, with noise, resampled to 40 points.

    Made by the generator of the package ``mnist1d`` (extra ``data``) with the settings that its authors publish. The
    defaults give 4000 training and 1000 test samples; the ten classes are balanced before the split, not within each
    part. A linear model stays near a test accuracy of 0.3 and a small convolutional network exceeds 0.9, so models
    differ widely in their generalization gap. Generating takes a few seconds; the result is cached, and every call
    returns new tensors.

    Args:
        num_samples: Number of training and test samples together, a multiple of 10; four fifths are training
            samples. Default 5000, the published size.
        max_translation: Number of positions to which a profile may be translated, from 1 (not at all) to 72 (all).
            Default 48, the published one.
        corr_noise_scale: Standard deviation ≥ 0 of the correlated noise, before normalization. Default 0.25, the
            published one.
        seed: Random seed of the generator, 0 to 2³² − 1. Default 42, the published one.

    Returns:
        ``(train_set, test_set)``. Inputs: float32, ``(N, 40)``; mean 0 and standard deviation 1 over all samples of
        both parts. Labels: int64, ``(N,)``, 0 to 9.

    Raises:
        ValueError: ``num_samples`` is not a positive multiple of 10, or another argument is out of range.
        ModuleNotFoundError: The package ``mnist1d`` is not installed.

    Source:
        Greydanus & Kobak 2024, *Scaling down deep learning with MNIST-1D*, arXiv:2011.14439.

    Example:
        >>> train_set, test_set = mnist1d()
        >>> len(train_set), len(test_set), train_set.tensors[0].shape[1]
        (4000, 1000, 40)
    """
    num_samples = check_int("num_samples", num_samples, minimum=10)
    if num_samples % 10:
        raise ValueError(f"num_samples must be a multiple of 10 (as many of each digit), got {num_samples}.")
    parts = _mnist1d_arrays(
        num_samples,
        check_int("max_translation", max_translation, maximum=72),
        check_real("corr_noise_scale", corr_noise_scale, 0.0),
        check_int("seed", seed, minimum=0, maximum=_LARGEST_NUMPY_SEED),
    )
    return _tensors(parts[0], parts[1]), _tensors(parts[2], parts[3])


@lru_cache(maxsize=4)
def _mnist1d_arrays(
    num_samples: int, max_translation: int, corr_noise_scale: float, seed: int
) -> tuple[NDArray[np.float64 | np.int64], ...]:
    with preserved_rng():  # the generator seeds Python's and NumPy's global states
        with optional_import("mnist1d", extra="data", needed_by="renyi_lab.datasets.mnist1d"):
            from mnist1d.data import get_dataset_args, make_dataset

        settings = get_dataset_args()
        settings.num_samples, settings.seed = num_samples, seed
        settings.max_translation, settings.corr_noise_scale = max_translation, corr_noise_scale
        data = make_dataset(settings)
    return data["x"], data["y"], data["x_test"], data["y_test"]


def digits(*, test_fraction: float = 0.25, seed: int = 0) -> tuple[TensorDataset, TensorDataset]:
    """The 1797 handwritten digits of 8 × 8 pixels that scikit-learn (extra ``data``) bundles, in a stratified split.

    Pixel counts 0 to 16 are divided by 16, so inputs are in [0, 1].

    Args:
        test_fraction: Fraction of the samples in the test set, in [0.01, 0.99], so that every class is in both parts.
            Default 0.25, that of ``sklearn.model_selection.train_test_split``.
        seed: Random seed of the split, 0 to 2³² − 1.

    Returns:
        ``(train_set, test_set)``. Inputs: float32, ``(N, 64)``. Labels: int64, ``(N,)``, 0 to 9.

    Raises:
        ValueError: An argument is out of range.
        ModuleNotFoundError: scikit-learn is not installed.

    Source:
        Alpaydin & Kaynak 1998, *Optical recognition of handwritten digits*, UCI repository, test part.

    Example:
        >>> train_set, test_set = digits()
        >>> len(train_set), len(test_set)
        (1347, 450)
    """
    test_fraction = check_real("test_fraction", test_fraction, 0.01, 0.99)
    seed = check_int("seed", seed, minimum=0, maximum=_LARGEST_NUMPY_SEED)
    # Importing scikit-learn draws from Python's global state.
    with preserved_rng(), optional_import("scikit-learn", extra="data", needed_by="renyi_lab.datasets.digits"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        x / 16, y, test_size=test_fraction, stratify=y, random_state=seed
    )
    return _tensors(x_train, y_train), _tensors(x_test, y_test)


def rotated_digits(angles: Sequence[float] = (0, 15, 30, 45, 60, 75), *, seed: int = 0) -> dict[float, TensorDataset]:
    """The digits of `digits` dealt to domains, one for each angle, and rotated by it: data for domain generalization.

    Each image is in one domain only. A classifier is trained on some of the domains and tested on another, whose angle
    it has not seen. Images are interpolated linearly; what turns in from outside is 0.

    Args:
        angles: Angles in degrees, counterclockwise, at least two and distinct as rotations. Default: six angles 15
            degrees apart, those of Ghifary et al. 2015, who rotate MNIST.
        seed: Random seed of the dealing, 0 to 2³² − 1.

    Returns:
        The domain of each angle, in the order given. Inputs: float32, ``(N, 64)``, in [0, 1]; N is 1797 divided by the
        number of angles, rounded up or down. Labels: int64, ``(N,)``, 0 to 9.

    Raises:
        TypeError: ``angles`` is not a sequence of numbers, or is a set, which has no order.
        ValueError: There are fewer than two angles or more than 100, two are the same rotation, or one is not finite.
        ModuleNotFoundError: scikit-learn is not installed.

    Source:
        Ghifary, Kleijn, Zhang & Balduzzi 2015, *Domain generalization for object recognition with multi-task
        autoencoders*, arXiv:1508.07680.

    Example:
        >>> domains = rotated_digits()
        >>> {angle: len(domain) for angle, domain in domains.items()}
        {0.0: 300, 15.0: 300, 30.0: 300, 45.0: 299, 60.0: 299, 75.0: 299}
    """
    if isinstance(angles, Set | Mapping):
        raise TypeError(f"angles must be a sequence of numbers, got a {type(angles).__name__}; write a list.")
    checked = check_reals("angles", angles)
    if not 2 <= len(checked) <= _MOST_DOMAINS:
        raise ValueError(f"angles must be 2 to {_MOST_DOMAINS} numbers, one for each domain; got {len(checked)}.")
    if len({round(angle % 360, _ANGLE_DIGITS) % 360 for angle in checked}) < len(checked):
        raise ValueError(f"angles must be distinct rotations (modulo 360 degrees), got {checked}.")
    seed = check_int("seed", seed, minimum=0, maximum=_LARGEST_NUMPY_SEED)
    with preserved_rng(), optional_import("scikit-learn", extra="data", needed_by="renyi_lab.datasets.rotated_digits"):
        from sklearn.datasets import load_digits

    table = load_digits()
    order = np.random.default_rng(seed).permutation(len(table.target))
    domains = {}
    for index, angle in enumerate(checked):
        chosen = order[index :: len(checked)]
        images = rotate(table.images[chosen] / 16, angle, axes=(2, 1), reshape=False, order=1)
        domains[angle] = _tensors(images.reshape(len(chosen), -1), table.target[chosen])
    return domains


def xor(
    *,
    num_samples: int = 200,
    num_features: int = 30,
    num_test: int = 1000,
    label_noise: float = 0.0,
    targets: str = "classes",
    seed: int = 0,
) -> tuple[TensorDataset, TensorDataset]:
    """Sparse parity: the label is the product of the first two signs; all other features are irrelevant.

        x uniform on {−1, +1}^d,   label = 1 if x₁·x₂ = +1, else 0

    On this distribution Wen, Li & Ma show that the flattest two-layer network may or may not generalize, depending
    on the architecture. They use labels ±1 with squared loss: ``2 * y - 1`` gives those. The two parts are drawn
    independently, so with few features (2^d not much larger than ``num_samples``) they share points.

    Args:
        num_samples: Number of training samples. Default 200 (heuristic: few enough to be memorized from 30 features).
        num_features: Number of features d, at least 2. Default 30 (heuristic: of 2³⁰ points the parts share none).
        num_test: Number of test samples. Default 1000 (heuristic: a standard error of at most 0.016 in accuracy).
        label_noise: Probability in [0, 1] that a training label is flipped; test labels stay clean.
        targets: ``"classes"`` (default): 0 and 1, for cross-entropy. ``"signs"``: −1 and +1, for squared loss.
        seed: Random seed for all draws.

    Returns:
        ``(train_set, test_set)``. Inputs: float32, ``(N, num_features)``, ±1. Labels: int64, ``(N,)``, 0 or 1;
        signs are float32, ``(N,)``.

    Raises:
        ValueError: An argument is out of range.

    Source:
        Wen, Li & Ma 2023, *Sharpness minimization algorithms do not only minimize sharpness to achieve better
        generalization*, arXiv:2307.11007.

    Example:
        >>> x, y = xor(num_samples=4)[0].tensors
        >>> bool((x[:, 0] * x[:, 1] == 2 * y - 1).all())
        True
        >>> xor(num_samples=4, targets="signs")[0].tensors[1].tolist()
        [-1.0, -1.0, -1.0, 1.0]
    """
    num_samples, num_test = check_int("num_samples", num_samples), check_int("num_test", num_test)
    num_features = check_int("num_features", num_features, minimum=2)
    label_noise = check_real("label_noise", label_noise, 0.0, 1.0)
    check_choice("targets", targets, ("classes", "signs"))
    generator = torch.Generator().manual_seed(check_int("seed", seed, minimum=0))
    signs = torch.randint(2, (num_samples + num_test, num_features), generator=generator, dtype=torch.int64) * 2 - 1
    labels = (signs[:, 0] * signs[:, 1] + 1) // 2
    flipped = torch.rand(num_samples, generator=generator, dtype=torch.float64) < label_noise
    labels[:num_samples] = torch.where(flipped, 1 - labels[:num_samples], labels[:num_samples])
    x = signs.to(torch.float32)
    if targets == "signs":
        labels = 2 * labels.to(torch.float32) - 1
    train = TensorDataset(x[:num_samples].clone(), labels[:num_samples].clone())
    return train, TensorDataset(x[num_samples:].clone(), labels[num_samples:].clone())


def _tensors(x: NDArray[np.float64 | np.int64], y: NDArray[np.float64 | np.int64]) -> TensorDataset:
    """Copy the arrays, so that writing to the tensors does not change the cached data."""
    inputs: Tensor = torch.tensor(x, dtype=torch.float32)
    return TensorDataset(inputs, torch.tensor(y, dtype=torch.int64))
