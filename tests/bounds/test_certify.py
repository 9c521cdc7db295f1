"""Certificates: the terms add up, and the prior does not depend on the bound's samples.

All in double precision, so that the training's rounding changes no prediction.
"""

from __future__ import annotations

import html
import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from renyi_lab import bounds
from renyi_lab.bounds import _search
from renyi_lab.bounds._certify import _split
from renyi_lab.bounds._noisy_training import train_posterior
from renyi_lab.posterior import GaussianPosterior
from renyi_lab.training import evaluate

NUM_CLASSES = 3


@pytest.fixture(scope="module", autouse=True)
def few_pilot_draws() -> Iterator[None]:
    """The bounds hold whichever candidates win, so a rough comparison serves here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_search, "_PILOT_DRAWS", 2)
        yield


def task(count: int = 200, seed: int = 0) -> TensorDataset:
    """Three Gaussian clusters that overlap a little."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, NUM_CLASSES, (count,), generator=generator)
    noise = torch.randn(count, NUM_CLASSES, generator=generator, dtype=torch.float64)
    return TensorDataset(2.5 * torch.eye(NUM_CLASSES, dtype=torch.float64)[labels] + noise, labels)


def network() -> nn.Module:
    return nn.Linear(NUM_CLASSES, NUM_CLASSES).double()


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(NUM_CLASSES, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, NUM_CLASSES)).double()


certify = partial(bounds.certify, epochs=5, num_draws=100, num_directions=4)
ROUTES = ["held-out", "noisy prior", "moved", "curvature"]


@pytest.fixture(scope="module")
def certificate() -> bounds.Certificate:
    return certify(network, task(), test_set=task(500, seed=1), delta=0.1)


def test_the_certificate_is_the_smallest_of_its_routes_and_above_the_test_error(certificate: bounds.Certificate):
    assert [route.name for route in certificate.routes] == ROUTES
    assert float(certificate) == certificate.value == min(route.bound.value for route in certificate.routes)
    assert certificate.best.bound is certificate.bound
    assert (certificate.num_prior_samples, certificate.num_bound_samples) == (150, 50)
    assert certificate.value < 0.4 < certificate.bound.trivial_value == pytest.approx(2 / 3)
    assert not certificate.bound.vacuous
    for route in certificate.routes:
        assert route.test_error is not None
        assert 0 < route.test_error < route.bound.value


@pytest.mark.parametrize("name", ROUTES)
def test_the_parts_of_a_bound_add_up_to_it(certificate: bounds.Certificate, name: str):
    terms = certificate[name].bound.terms
    parts = [terms[f"from_{part}"] for part in ("measured_error", "draws", "confidence", "divergence")]
    assert sum(parts) == pytest.approx(certificate[name].bound.value, abs=1e-12)
    assert min(parts) >= 0


@pytest.mark.parametrize("name", ROUTES[1:])
def test_a_sampled_route_is_langford_seeger_with_its_share_of_delta(certificate: bounds.Certificate, name: str):
    route, n = certificate[name], 50
    terms, posterior = route.bound.terms, route.classifier
    assert isinstance(posterior, GaussianPosterior)
    prior = GaussianPosterior(certificate["held-out"].classifier, posterior.sigma)
    assert terms["kl"] == pytest.approx(posterior.kl(prior), rel=1e-12)
    expected = bounds.langford_seeger(terms["empirical_loss"], terms["kl"], n, 0.45 * 0.1 / 4)
    assert route.bound.value == pytest.approx(expected.value, rel=1e-12)
    assert terms["delta_draws"] == pytest.approx(0.1 * 0.1 / 3)
    # The measured error is that of this very posterior on the bound's samples.
    _, bound_part = _split(task(), 0.75, 0)
    again = posterior.gibbs_error(bound_part, 2000, seed=77)
    assert terms["sampled_loss"] == pytest.approx(again.value, abs=0.05)
    assert terms["empirical_loss"] > terms["sampled_loss"]


def test_divergence_and_curvature_of_the_routes(certificate: bounds.Certificate):
    assert certificate["noisy prior"].bound.terms["kl"] == 0.0
    assert certificate["noisy prior"].bound.terms["from_divergence"] == 0.0
    assert "KL = 0" in certificate["noisy prior"].certifies
    assert certificate["moved"].bound.terms["kl"] > 0
    assert certificate["moved"].bound.terms["beta"] == 0
    assert certificate["curvature"].bound.terms["beta"] > 0


def test_the_held_out_route_counts_the_mistakes_on_the_bounds_samples(certificate: bounds.Certificate):
    _, bound_part = _split(task(), 0.75, 0)
    held_out = certificate["held-out"]
    errors = round((1 - evaluate(held_out.classifier, bound_part).accuracy) * 50)
    assert held_out.bound.value == bounds.held_out(errors, 50, 0.45 * 0.1).value


def test_the_split_is_a_partition_and_the_same_for_every_data_set_type():
    class Mapped(Dataset):
        def __len__(self) -> int:
            return 200

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            return task()[index]

    prior_part, bound_part = _split(task(), 0.75, 3)
    everything = torch.cat([prior_part.tensors[0], bound_part.tensors[0]])
    assert torch.equal(everything.sort(dim=0).values, task().tensors[0].sort(dim=0).values)
    mapped = _split(Mapped(), 0.75, 3)
    assert all(torch.equal(mapped[1][i][0], bound_part.tensors[0][i]) for i in range(50))


def test_the_prior_does_not_depend_on_the_bounds_samples():
    # Other labels on the bound's part: the prior's network must be the same bit for bit.
    x, y = task().tensors
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    changed = y.clone()
    changed[order[150:]] = (y[order[150:]] + 1) % NUM_CLASSES
    first, second = (certify(normalised, (x, labels))["held-out"].classifier for labels in (y, changed))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_bounds_depend_on_the_seed_and_not_on_the_test_set(certificate: bounds.Certificate):
    again = certify(network, task(), delta=0.1)
    assert [route.bound for route in again.routes] == [route.bound for route in certificate.routes]
    assert again.best.test_error is None
    other = certify(network, task(), delta=0.1, seed=1)
    assert [route.bound for route in other.routes] != [route.bound for route in certificate.routes]


def test_every_route_has_the_batch_norm_statistics_of_the_prior():
    found = certify(normalised, task())
    held_out = found["held-out"].classifier.state_dict()
    assert held_out["1.num_batches_tracked"] > 0
    for name in ROUTES[1:]:
        state = found[name].classifier.model.state_dict()
        for buffer in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
            assert torch.equal(state[buffer], held_out[buffer])
    assert found["moved"].bound.terms["kl"] > 0


def test_it_prints_the_bounds_their_parts_and_their_classifiers(certificate: bounds.Certificate):
    for text in (repr(certificate), html.unescape(certificate._repr_html_())):
        assert f"error ≤ {certificate.value:.3g} with probability 0.9" in text
        assert all(name in text for name in (*ROUTES, "from_divergence", "test_error"))
        assert all(route.certifies in text for route in certificate.routes)
    frame = certificate.to_frame()
    assert frame.loc["moved", "bound"] == certificate["moved"].bound.value


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_random_states_and_data_are_unchanged(error: type[BaseException] | None):
    class Interrupted(nn.Linear):
        calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            Interrupted.calls += 1
            if error is not None and Interrupted.calls == 30:
                raise error
            return super().forward(x)

    data = task()
    before = [tensor.clone() for tensor in data.tensors]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    if error is None:
        certify(lambda: Interrupted(NUM_CLASSES, NUM_CLASSES).double(), data)
    else:
        with pytest.raises(error):
            certify(lambda: Interrupted(NUM_CLASSES, NUM_CLASSES).double(), data)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()
    assert all(torch.equal(a, b) for a, b in zip(before, data.tensors, strict=True))


def test_a_posterior_is_trained_in_evaluation_mode():
    class Recording(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(self.training)
            return super().forward(x)

    seen: list[bool] = []
    train_posterior(Recording(NUM_CLASSES, NUM_CLASSES).double(), task(), 200, 0.1, 1.0, 2, 0, lr=0.01, batch_size=50)
    assert len(seen) == 8
    assert not any(seen)


# --- messages ---------------------------------------------------------------------------------------------------


def refused(**changed: Any) -> Callable[[], bounds.Certificate]:
    return partial(certify, **{"model_factory": network, "train_set": task(), **changed})


MESSAGES = [
    (refused(model_factory=network()), TypeError, "must be a function that makes an untrained network"),
    (refused(model_factory="mlp"), TypeError, "must be a function that makes an untrained network"),
    (refused(model_factory=lambda: 3), TypeError, "must return a torch.nn.Module"),
    (refused(model_factory=lambda: nn.Linear(NUM_CLASSES, 1)), ValueError, "classes ≥ 2"),
    (refused(model_factory=lambda: nn.Linear(NUM_CLASSES, 1)), ValueError, r"pass a network with the scores \(0, f\)"),
    (
        refused(train_set=([task().tensors[0]], task().tensors[1])),
        TypeError,
        "inputs must be one tensor here, got a list",
    ),
    (refused(model_factory=lambda: network().requires_grad_(False)), ValueError, "no trainable parameters"),
    (refused(train_set=(torch.ones(0, 3), torch.ones(0))), ValueError, "train_set is empty"),
    (refused(train_set=(torch.ones(9, 3), torch.ones(9))), ValueError, "must be class indices"),
    (refused(train_set=(torch.ones(9, 3), torch.full((9,), 7))), ValueError, "label 7"),
    (refused(train_set=(torch.full((9, 3), math.nan), torch.zeros(9).long())), ValueError, "not finite"),
    (refused(train_set=[1, 2]), TypeError, "train_set must be"),
    (refused(train_set=[task().tensors, task().tensors]), TypeError, r"join the batches to one pair \(x, y\)"),
    (refused(prior_fraction=0.0), ValueError, "prior_fraction must lie in"),
    (refused(prior_fraction=0.999), ValueError, "leaves 200 for the prior and 0 for the bound"),
    (refused(delta=1.0), ValueError, "delta must lie in"),
    (refused(noise=0.0), ValueError, "noise must lie in"),
    (refused(epochs=0), ValueError, "epochs must be at least 1"),
    (refused(lr=-0.1), ValueError, "lr must lie in"),
    (refused(lr="0.1"), TypeError, "lr must be a real number"),
    (refused(train_set=(torch.ones(9, 2), torch.zeros(9).long())), ValueError, "not take the inputs of train_set"),
    (refused(test_set=(torch.ones(9, 2), torch.zeros(9).long())), ValueError, "not take the inputs of test_set"),
    (refused(test_set=(torch.ones(9, 3), torch.zeros(9))), ValueError, "test_set's targets must be class indices"),
    (refused(num_draws=0), ValueError, "num_draws must be at least 1"),
    (refused(num_directions=0), ValueError, "num_directions must be at least 1"),
    (refused(seed=-1), ValueError, "seed must be at least 0"),
    (refused(device="tpu9"), ValueError, "tpu9"),
    (lambda: bounds.Certificate((), 0.05, 1, 1, 0.0)["best"], KeyError, "there are"),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
