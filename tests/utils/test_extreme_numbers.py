"""Numbers near the ends of what a float can hold, and orders near the ends of what an entropy means."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

import renyi_lab as rl
from renyi_lab.optim._rsam import divergence
from renyi_lab.optim._vectors import total


@pytest.mark.parametrize("p", [[3.0, 3.0, 1.0], [1e-310, 1e-310, 5e-324], [1e300, 1e300, 1e-300]])
@pytest.mark.parametrize("alpha", [1e100, 1.7e308])
def test_huge_orders_are_those_of_the_min_entropy(p, alpha):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rl.renyi_entropy(p, alpha) == pytest.approx(rl.renyi_entropy(p, math.inf), abs=1e-12)
        assert rl.escort_probabilities(p, alpha) == pytest.approx([0.5, 0.5, 0.0])
        assert float(rl.Spectrum.from_eigenvalues(p).renyi_entropy(alpha)) == pytest.approx(rl.renyi_entropy(p, alpha))


def test_the_gradient_of_a_huge_order_is_that_of_the_largest_entry():
    p = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(rl.renyi_entropy(p, 1e308), p)
    assert gradient.tolist() == pytest.approx([-1 / 6, 1 / 6, 1 / 6])


@pytest.mark.parametrize("alpha", [1e-10, 0.01, 0.09])
def test_orders_that_count_zeros_have_no_standard_error_where_zeros_cannot_be_counted(alpha):
    matrix = torch.diag(torch.cat([torch.linspace(0.1, 10, 100), torch.zeros(200)])).double()
    estimated = rl.estimate_spectrum(matrix, num_matvecs=40)
    with pytest.warns(UserWarning, match="exactly zero"):
        assert estimated.renyi_entropy(alpha).standard_error == math.inf
    assert rl.exact_spectrum(matrix).renyi_entropy(alpha).standard_error < 1e-3
    with pytest.raises(ValueError, match="counts non-zero eigenvalues"):
        rl.estimate_spectrum(matrix, target_error=0.1, alpha=alpha)


@pytest.mark.parametrize("alpha", [0.3, 0.8, 1.2, 5.0, 10.0, 50.0, 1e4])
@pytest.mark.parametrize("size", [100, 100_000])
def test_the_divergence_of_a_gradient_is_right_at_large_orders_in_single_precision(alpha, size):
    gradient = torch.randn(size, generator=torch.Generator().manual_seed(0))
    expected = math.log(size) - float(rl.renyi_entropy(gradient.double().square(), alpha))
    assert float(divergence([gradient / gradient.norm()], alpha)) == pytest.approx(expected, abs=1e-4)


def test_norms_of_many_entries_keep_their_digits():
    entries = torch.rand(5_000_000, generator=torch.Generator().manual_seed(0))
    assert float(total([entries], 1)) == pytest.approx(float(entries.double().sum()), rel=1e-6)
    assert float(total([entries.view(50, -1).T], 2)) == pytest.approx(float(entries.double().norm()), rel=1e-6)
    assert float(total([entries], math.inf)) == float(entries.max())


def test_the_order_of_rsam_has_a_largest_value():
    with pytest.raises(ValueError, match="alpha must lie in"):
        rl.RSAM([torch.zeros(1, requires_grad=True)], lr=0.1, alpha=1e308)
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    for form in ("paper", "divergence", "exact"):
        optimizer = rl.RSAM([w], lr=0.1, alpha=1e6, form=form)
        w.square().sum().backward()
        optimizer.first_step()
        assert np.isfinite(w.tolist()).all()
        optimizer.restore()


def test_bounds_of_fractions_can_be_printed_and_own_their_terms():
    bound = rl.bounds.sampled_pac_bayes(Fraction(1, 10), np.float32(2), 1000, num_draws=50, delta=Fraction(1, 20))
    assert "delta" in repr(bound)
    assert "delta" in bound._repr_html_()
    terms = {"kl": 1.0}
    made = rl.bounds.Bound("example", 0.5, terms, (), "")
    terms["kl"] = 2.0
    assert made.terms == {"kl": 1.0}
    with pytest.raises(TypeError, match="value must be a real number"):
        rl.bounds.Bound("example", "0.5", {}, (), "")


def test_the_volume_of_a_basin_is_a_number_up_to_the_largest_height():
    volume = rl.bounds.basin_log_volume(height=1e308, log_determinant=-5.0, dim=4)
    assert volume == pytest.approx(2 * (math.log(2 * math.pi) + 308 * math.log(10)) - math.log(2) + 2.5)


def test_the_determinant_of_a_trace_of_few_digits_is_refused():
    with pytest.raises(ValueError, match="rescale the loss"):
        rl.bounds.renyi_log_determinant(entropy=1.0, trace=1e-320, dim=4, alpha=0.5)
