"""The data sets: recorded values, splits, seeds, and no side effects."""

import random

import numpy as np
import pytest
import torch

from renyi_lab import datasets


def all_rng_states():
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2],
        torch.get_rng_state().tolist(),
    )


def test_mnist1d_has_the_values_of_the_published_generator_with_seed_42():
    # Recorded from mnist1d.data.make_dataset(get_dataset_args()) of mnist1d 0.0.2.post1.
    train_set, test_set = datasets.mnist1d()
    x, y = train_set.tensors
    x_test, y_test = test_set.tensors
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert (tuple(x.shape), tuple(x_test.shape)) == ((4000, 40), (1000, 40))
    assert x[0, :4].tolist() == pytest.approx([-0.33200567, -0.47191037, -0.77869708, -1.00974083], abs=1e-6)
    assert x_test[0, :4].tolist() == pytest.approx([-0.07877078, -0.21073171, -0.09175138, 0.28267112], abs=1e-6)
    assert x.double().sum().item() == pytest.approx(-51.787468, abs=1e-3)
    assert x.double().square().sum().item() == pytest.approx(159248.25387, abs=0.05)
    assert x_test.double().square().sum().item() == pytest.approx(40751.74613, abs=0.05)
    assert y[:5].tolist() == [2, 6, 4, 5, 6]
    assert y.bincount().tolist() == [398, 396, 411, 394, 394, 402, 401, 404, 402, 398]
    assert (y.bincount() + y_test.bincount()).tolist() == [500] * 10


def test_another_seed_or_size_gives_other_mnist1d_data():
    small, _ = datasets.mnist1d(num_samples=100)
    other, rest = datasets.mnist1d(num_samples=100, seed=7)
    assert (len(other), len(rest)) == (80, 20)
    assert not torch.equal(small.tensors[0], other.tensors[0])
    assert torch.equal(other.tensors[0], datasets.mnist1d(num_samples=100, seed=7)[0].tensors[0])


def test_writing_to_the_tensors_does_not_change_later_calls():
    first = datasets.mnist1d(num_samples=100)
    expected = [tensor.clone() for part in first for tensor in part.tensors]
    for part in first:
        for tensor in part.tensors:
            tensor.zero_()
    again = [tensor for part in datasets.mnist1d(num_samples=100) for tensor in part.tensors]
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


def test_mnist1d_without_translation_and_noise_differs_within_a_class_by_scale_and_shear_only():
    still, _ = datasets.mnist1d(num_samples=500, max_translation=1, corr_noise_scale=0.0)
    published, _ = datasets.mnist1d(num_samples=500)

    def spread_within_classes(x, y):
        return float(torch.stack([x[y == label].var(dim=0).mean() for label in range(10)]).mean())

    # Over all classes the variance is 1.
    assert spread_within_classes(*still.tensors) < 0.4 < spread_within_classes(*published.tensors)


@pytest.mark.parametrize(
    "make", [lambda: datasets.mnist1d(num_samples=50, seed=3), datasets.digits, datasets.rotated_digits, datasets.xor]
)
def test_global_random_states_are_restored_and_no_file_is_written(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    datasets._mnist1d_arrays.cache_clear()
    before = all_rng_states()
    make()
    assert all_rng_states() == before
    assert list(tmp_path.iterdir()) == []


def test_digits_are_all_1797_in_the_unit_interval_in_a_stratified_split():
    train_set, test_set = datasets.digits()
    x = torch.cat([train_set.tensors[0], test_set.tensors[0]])
    assert (len(train_set), len(test_set), x.shape[1]) == (1347, 450, 64)
    assert (x.min().item(), x.max().item()) == (0.0, 1.0)
    # The sum of the bundled table's pixel counts.
    assert (16 * x.double()).sum().item() == 561718
    share = test_set.tensors[1].bincount() / (train_set.tensors[1].bincount() + test_set.tensors[1].bincount())
    assert (share - 0.25).abs().max() < 0.01


def test_digits_split_depends_on_its_seed_and_fraction():
    assert torch.equal(datasets.digits(seed=1)[1].tensors[0], datasets.digits(seed=1)[1].tensors[0])
    assert not torch.equal(datasets.digits(seed=1)[1].tensors[1], datasets.digits(seed=2)[1].tensors[1])
    assert len(datasets.digits(test_fraction=0.5)[1]) == 899
    assert datasets.digits(test_fraction=0.01)[1].tensors[1].unique().tolist() == list(range(10))


def test_the_domains_of_rotated_digits_share_no_image_and_have_all_of_them():
    upright = datasets.rotated_digits([0, 360 * 5 + 90, -90])
    pixels = torch.cat([domain.tensors[0] for domain in upright.values()])
    assert list(upright) == [0.0, 1890.0, -90.0]
    assert [len(domain) for domain in upright.values()] == [599, 599, 599]
    assert (16 * pixels.double()).sum().item() == pytest.approx(561718, rel=1e-6)  # a quarter turn keeps every pixel
    labels = torch.cat([domain.tensors[1] for domain in upright.values()])
    assert torch.equal(labels.bincount(), torch.cat([part.tensors[1] for part in datasets.digits()]).bincount())


def test_rotated_digits_turn_counterclockwise():
    upright, turned = (datasets.rotated_digits(angles)[angles[0]] for angles in ((0, 45), (90, 45)))
    images, quarter = (domain.tensors[0].view(-1, 8, 8) for domain in (upright, turned))
    torch.testing.assert_close(quarter, images.rot90(1, (1, 2)), rtol=0, atol=1e-6)
    assert torch.equal(upright.tensors[1], turned.tensors[1])


def test_rotated_digits_stay_in_the_unit_interval_and_follow_their_seed():
    first, again, other = (datasets.rotated_digits(seed=seed)[75].tensors for seed in (0, 0, 1))
    assert 0 <= first[0].min() <= first[0].max() <= 1
    assert (first[0].dtype, first[1].dtype) == (torch.float32, torch.int64)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[1], other[1])


@pytest.mark.parametrize(
    ("angles", "message"),
    [
        ([15], "angles must be 2 to 100 numbers, one for each domain; got 1"),
        (range(101), "got 101"),
        ([0, 360], r"angles must be distinct rotations \(modulo 360 degrees\), got \[0.0, 360.0\]"),
        ([0, -1e-20], "angles must be distinct rotations"),
        ([75, -285.0000000000001], "angles must be distinct rotations"),
        ({0, 15}, "angles must be a sequence of numbers, got a set; write a list"),
        ([0, 10**400], "each of angles must be finite, got an integer or fraction beyond"),
        ([0, float("nan")], "angles"),
        ([0, "15"], "angles"),
        (15, "angles"),
    ],
)
def test_bad_angles_are_refused(angles, message):
    with pytest.raises((ValueError, TypeError), match=message):
        datasets.rotated_digits(angles)


def test_xor_labels_are_the_product_of_the_first_two_signs():
    for part in datasets.xor(num_samples=500, num_features=7, num_test=300):
        x, y = part.tensors
        assert torch.equal(x.abs(), torch.ones_like(x))
        assert torch.equal(x[:, 0] * x[:, 1], (2 * y - 1).float())


def test_xor_signs_are_uniform_and_no_single_feature_is_correlated_with_the_label():
    x, y = datasets.xor(num_samples=20_000, num_features=5)[0].tensors
    # Five standard errors of a mean of 20,000 signs.
    assert x.mean(0).abs().max() < 5 / 20_000**0.5
    assert (x * (2 * y - 1).unsqueeze(1)).mean(0).abs().max() < 5 / 20_000**0.5


def test_xor_label_noise_flips_the_stated_fraction_of_training_labels_only():
    x, y = datasets.xor(num_samples=10_000, label_noise=0.2)[0].tensors
    wrong = (x[:, 0] * x[:, 1] != 2 * y - 1).double().mean().item()
    assert wrong == pytest.approx(0.2, abs=0.02), "five standard errors of 10,000 draws"
    x, y = datasets.xor(label_noise=1.0)[1].tensors
    assert torch.equal(x[:, 0] * x[:, 1], (2 * y - 1).float())
    x, y = datasets.xor(label_noise=1.0)[0].tensors
    assert torch.equal(x[:, 0] * x[:, 1], (1 - 2 * y).float())


def test_xor_depends_on_its_seed():
    assert torch.equal(datasets.xor(seed=5)[0].tensors[0], datasets.xor(seed=5)[0].tensors[0])
    assert not torch.equal(datasets.xor(seed=5)[0].tensors[0], datasets.xor(seed=6)[0].tensors[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: datasets.mnist1d(num_samples=101), "num_samples must be a multiple of 10.*101"),
        (lambda: datasets.mnist1d(num_samples=0), "num_samples must be at least 10, got 0"),
        (lambda: datasets.mnist1d(max_translation=0), "max_translation must be at least 1, got 0"),
        (lambda: datasets.mnist1d(max_translation=73), "max_translation must be at most 72, got 73"),
        (lambda: datasets.mnist1d(corr_noise_scale=-0.1), r"corr_noise_scale must lie in \[0, inf\), got -0\.1"),
        (lambda: datasets.mnist1d(seed=-1), "seed must be at least 0, got -1"),
        (lambda: datasets.digits(test_fraction=1.0), "test_fraction must lie in .*got 1"),
        (lambda: datasets.xor(num_features=1), "num_features must be at least 2, got 1"),
        (lambda: datasets.xor(label_noise=1.5), "label_noise must lie in .*got 1.5"),
    ],
)
def test_bad_arguments_are_named_with_their_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
