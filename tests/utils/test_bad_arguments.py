"""Bad arguments of every kind are answered with an error that names the argument."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random

import mpmath
import numpy as np
import pytest
import torch
from fuzz.cases import Case, consumed, owner_of
from fuzz.objects import IMPORTS, namespace_for
from fuzz.surface import targets
from fuzz.values import plausible
from torch.nn import functional as F

import renyi_lab as rl
from renyi_lab._utils.arrays import real_array

MASKED = np.ma.masked_array([1.0, 2.0], [False, True])


@pytest.fixture
def model():
    return rl.models.mlp(2, 3, 2)


@pytest.fixture
def data():
    return torch.linspace(-1, 1, 12).reshape(6, 2), torch.tensor([0, 1, 0, 1, 1, 0])


@pytest.mark.parametrize(
    "values",
    [MASKED, "text", {1.0, 2.0}, {"a": 1.0}, iter([1.0]), [1j], [True], ["a"], [None], torch.ones(2, device="meta")],
)
def test_an_array_of_anything_but_numbers_is_refused_by_name(values):
    with pytest.raises(TypeError, match="weights"):
        real_array("weights", values)


def test_an_array_is_a_copy_in_double_precision():
    values = np.array([1.0, 2.0])
    copy = real_array("p", values)
    values[0] = 5.0
    assert copy.tolist() == [1.0, 2.0]
    assert real_array("p", [Fraction(1, 2), 2]).tolist() == [0.5, 2.0]
    assert real_array("p", torch.ones(2, requires_grad=True)).dtype == np.float64


@pytest.mark.parametrize(
    "call",
    [
        lambda: rl.renyi_entropy(MASKED, 1.0),
        lambda: rl.Spectrum.from_eigenvalues(MASKED),
        lambda: rl.Spectrum(MASKED, np.ones(2), 2),
        lambda: rl.matrix_with_spectrum(MASKED),
        lambda: rl.Spectrum.from_eigenvalues([1.0, 2.0]).density(MASKED),
    ],
)
def test_a_mask_is_never_ignored(call):
    with pytest.raises(TypeError, match="masked"):
        call()


def test_a_spectrum_takes_lists_copies_arrays_and_needs_an_integer_dimension():
    nodes = np.array([1.0, 2.0])
    spectrum = rl.Spectrum(nodes, [1.0, 1.0], 2)
    nodes[0] = 9.0
    assert spectrum.nodes.tolist() == [1.0, 2.0]
    assert spectrum.weights.dtype == np.float64
    with pytest.raises(TypeError, match="dim must be an integer"):
        rl.Spectrum([1.0, 2.0], [1.0, 1.0], 2.0)


@pytest.mark.parametrize("alpha", [0.0, 0.005, 0.5, 0.95, 1.0, 1.05, 2.0, math.inf])
@pytest.mark.parametrize("p", [[1e300, 1e-300], [1.0, 1e-320], [1e308, 5e-324, 1e300], [1e-310, 1e-320, 5e-324]])
def test_entropy_is_right_for_ratios_below_the_smallest_number(p, alpha):
    with mpmath.workdps(50):
        values = [mpmath.mpf(value) / mpmath.fsum(map(mpmath.mpf, p)) for value in p]
        if alpha == 1:
            true = -mpmath.fsum(value * mpmath.log(value) for value in values)
        elif math.isinf(alpha):
            true = -mpmath.log(max(values))
        else:
            true = mpmath.log(mpmath.fsum(value ** mpmath.mpf(alpha) for value in values)) / (1 - mpmath.mpf(alpha))
        powers = [value ** mpmath.mpf(min(alpha, 99)) for value in values]
        shares = [float(power / mpmath.fsum(powers)) for power in powers]
    assert rl.renyi_entropy(p, alpha) == pytest.approx(float(true), abs=1e-12, rel=1e-12)
    if not math.isinf(alpha):
        assert rl.escort_probabilities(p, alpha) == pytest.approx(shares, abs=1e-13)


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1, 2], [0, 1, 0, 1, 1, -1], [0, 1, 0, 1, 1, -100]])
def test_gibbs_error_refuses_labels_out_of_range(model, data, labels):
    with pytest.raises(ValueError, match="label"):
        rl.gibbs_error(model, (data[0], torch.tensor(labels)), sigma=0.1, num_draws=2)
    with pytest.raises(TypeError, match="integers"):
        rl.gibbs_error(model, (data[0], data[1].float()), sigma=0.1, num_draws=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rl.bounds.isotropic_pac_bayes(0.1, 1.0, 1e-170, 100, num_draws=10), "sigma"),
        (lambda: rl.bounds.isotropic_pac_bayes(0.1, 1.0, 0.1, 100, num_draws=10**400), "num_draws"),
        (lambda: rl.bounds.isotropic_pac_bayes(0.1, 1.0, 0.1, 100, num_draws=10, num_sigmas=10**400), "num_sigmas"),
        (lambda: rl.bounds.maurer(0.1, 1.0, 100, delta=5e-324), "delta"),
        (lambda: rl.bounds.held_out(3, 100, delta=5e-324), "delta"),
        (lambda: rl.bounds.sampled_pac_bayes(0.1, 1.0, 100, num_draws=10, choices=10**400), "choices"),
    ],
)
def test_bounds_refuse_numbers_whose_arithmetic_overflows(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_tiny_sigma_at_the_prior_costs_nothing():
    assert rl.bounds.isotropic_pac_bayes(0.1, 0.0, 1e-170, 100, num_draws=10).terms["kl"] == 0.0


@pytest.mark.parametrize("wrong", [None, 1.0, "text", [1.0], torch.ones(3), object()])
def test_wrong_objects_are_refused_by_name(wrong, model, data):
    spectrum, ax = rl.Spectrum.from_eigenvalues([1.0, 2.0]), rl.plots.new_figure().subplots()
    calls = {
        "ax": lambda: rl.plots.plot_entropy_curve(wrong, spectrum, [1.0]),
        "histories": lambda: rl.plots.plot_histories(ax, wrong),
        "each of histories": lambda: rl.plots.plot_histories(ax, {"a": wrong}),
        "spectrum": lambda: rl.bounds.level_set_bounds(wrong, 0.1, 1.0, [1.0], 100),
        "basin": lambda: rl.bounds.jia_su(wrong, 1.0, 100),
        "bounds": lambda: rl.bounds.plot_waterfall(ax, wrong),
        "loss_fn": lambda: rl.dense_hessian(model, wrong, data),
        "model": lambda: rl.dense_hessian(wrong, F.cross_entropy, data),
        "data": lambda: rl.dense_hessian(model, F.cross_entropy, wrong),
        "params": lambda: rl.hvp(F.cross_entropy(model(data[0]), data[1]), wrong, torch.ones(17)),
        "alphas": lambda: rl.plots.plot_entropy_curve(ax, spectrum, [object()]),
        "vector": lambda: rl.hvp(F.cross_entropy(model(data[0]), data[1]), model.parameters(), [1.0]),
    }
    if wrong is not None:
        calls["choice"] = lambda: rl.plots.plot_spectrum(ax, spectrum, choice=wrong)
    for name, call in calls.items():
        with pytest.raises((TypeError, ValueError), match=name):
            call()


def test_dense_hessian_explains_data_that_do_not_fit(model, data):
    with pytest.raises(ValueError, match="data"):
        rl.dense_hessian(model, F.cross_entropy, (data[0][:, :1], data[1]))


def test_params_that_hold_none_are_no_request_for_all(model, data):
    with pytest.raises(TypeError, match="params"):
        rl.HessianOperator(model, F.cross_entropy, data, params=[None])


@pytest.mark.parametrize("wrong", [np.array(["linear", "log"]), ["linear"], 1.0, None, {}])
def test_an_option_that_is_no_text_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match="scale must be one of"):
        rl.Spectrum.from_eigenvalues([1.0, 2.0]).density([1.0], scale=wrong)


@pytest.mark.parametrize("size", [0, -1.0, math.nan, math.inf, 1e9, "4", None])
def test_a_figure_has_a_size_that_can_be_drawn(size):
    with pytest.raises((TypeError, ValueError), match="width"):
        rl.plots.new_figure(width=size)


@pytest.mark.parametrize("wrong", [None, 1.0, "text", torch.ones(3), torch.eye(17).to_sparse()])
def test_vectors_of_parameters_are_checked_by_name(wrong, model, data):
    operator = rl.HessianOperator(model, F.cross_entropy, data)
    surface = rl.operators.LossSurface(operator)
    before = [parameter.clone() for parameter in model.parameters()]
    for name, call in {
        "weights": lambda: surface.loss(wrong),
        "vector": lambda: operator.unflatten(torch.ones(3) if isinstance(wrong, torch.Tensor) else wrong),
        "tensors": lambda: operator.flatten(wrong),
        "steps": lambda: rl.perturbation.loss_along(operator, torch.ones(17), iter([1.0])),
    }.items():
        with pytest.raises((TypeError, ValueError), match=name):
            call()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_weights_of_another_precision_are_converted(model, data):
    surface = rl.operators.LossSurface(rl.HessianOperator(model, F.cross_entropy, data))
    assert surface.loss(surface.start.double()) == surface.loss(surface.start)


@pytest.mark.parametrize("wrong", [None, 1.0, "text", [1.0], torch.ones(3), object()])
def test_wrong_objects_of_optimizers_and_posteriors_are_refused_by_name(wrong, model, data):
    optimizer, scaler = rl.SAM(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    with pytest.raises(TypeError, match="optimizer"):
        rl.optim.amp_step(wrong, scaler, lambda: None)
    with pytest.raises(TypeError, match="scaler"):
        rl.optim.amp_step(optimizer, wrong, lambda: None)
    with pytest.raises(TypeError, match="closure"):
        rl.optim.amp_step(optimizer, scaler, wrong)
    with pytest.raises(TypeError, match="f must be"):
        rl.Spectrum.from_eigenvalues([1.0]).trace_of(wrong)
    with pytest.raises(TypeError, match="bias must be True or False"):
        rl.models.mlp(2, 2, bias=wrong)


class Unprintable:
    def __repr__(self):
        raise RuntimeError


def test_a_value_that_cannot_be_printed_is_still_refused_by_name():
    with pytest.raises(TypeError, match="alpha must be a real number"):
        rl.renyi_entropy([1.0], Unprintable())


@pytest.mark.parametrize("indices", ["a", [0.5], [7], object(), 0])
def test_indices_of_ritz_vectors_are_checked(indices):
    with pytest.raises(ValueError, match="indices"):
        rl.lanczos(torch.eye(3).double(), num_steps=1).ritz_vectors(indices)


@pytest.mark.parametrize("wrong", [1.0, object(), np.float64(2)])
def test_settings_of_optimizers_bounds_and_blocks_are_checked_by_name(wrong, model, data):
    with pytest.raises(TypeError, match="state_dict must be a Mapping"):
        rl.SAM(model.parameters(), lr=0.1).load_state_dict(wrong)
    with pytest.raises(TypeError, match="params"):
        rl.SAM(wrong, lr=0.1)
    with pytest.raises(TypeError, match="group_settings"):
        rl.SharpnessAware(model.parameters(), torch.optim.SGD, 0.05, group_settings=wrong, lr=0.1)
    with pytest.raises(TypeError, match="params must hold"):
        rl.HessianOperator(model, F.cross_entropy, data, params=np.array(0.5))
    with pytest.raises(TypeError, match="extra must be a real number"):
        rl.bounds.maurer(0.1, 1.0, 100).with_terms(extra=np.ones(2))


def test_an_unscaled_loss_under_a_scaler_is_explained(model, data):
    def closure():
        loss = F.cross_entropy(model(data[0]), data[1])
        loss.backward()
        return loss

    with pytest.raises(RuntimeError, match="closure must scale the loss"):
        rl.optim.amp_step(rl.SAM(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu"), closure)


@pytest.mark.parametrize("wrong", [MASKED, "text", {1.0}, torch.ones(2, device="meta"), [None]])
def test_arrays_of_correlations_and_radii_are_checked_by_name(wrong, model, data):
    operator = rl.HessianOperator(model, F.cross_entropy, data)
    with pytest.raises(TypeError, match="x "):
        rl.study.kendall_tau(wrong, [1.0, 2.0])
    with pytest.raises(TypeError, match="rhos "):
        rl.perturbation.discrepancy_curve(operator, "layer1", torch.eye(2), wrong)


FLAGS = [
    (target.name, parameter.name)
    for target in targets()
    for parameter in target.parameters
    if parameter.annotation in ("bool", "bool | None")
]
# Slow to call, or called with widths by position: tested elsewhere.
OTHERS = {"renyi_lab.bounds.certify", "renyi_lab.bounds.bound_report", "renyi_lab.models.mlp"}


def test_every_flag_of_a_public_function_is_found():
    assert {("renyi_lab.lanczos", "restart"), ("renyi_lab.SharpnessReport.table", "errors")} <= {*FLAGS}


@pytest.mark.parametrize(("name", "flag"), [pair for pair in FLAGS if pair[0] not in OTHERS])
@pytest.mark.parametrize("wrong", ["'text'", "torch.ones(3)"])
def test_every_flag_is_checked_by_name(name, flag, wrong):
    target = next(target for target in targets() if target.name == name)
    owner = owner_of(target, Random(0)) if target.kind == "method" else ""
    given = dict(required_arguments(target)) | {flag: wrong}
    order = [parameter.name for parameter in target.parameters]
    case = Case(0, 0, target, "one hostile", owner, tuple(sorted(given.items(), key=lambda pair: order.index(pair[0]))))
    namespace = {}
    exec(IMPORTS, namespace)
    with pytest.raises(TypeError, match=flag):
        consumed(eval(case.call, namespace_for(case.call, namespace)))


def required_arguments(target):
    """The first plausible value of each required parameter."""
    for parameter in target.parameters:
        if parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        ):
            yield parameter.name, plausible(target.name, parameter.name, str(parameter.annotation))[0]


@pytest.mark.parametrize("huge", [10**400, -(10**400)])
def test_integers_beyond_64_bits_are_refused_by_name(huge):
    with pytest.raises(ValueError, match="dim must be at"):
        rl.bounds.basin_log_volume(0.1, 1.0, huge)
    with pytest.raises(ValueError, match="seed must be at"):
        rl.matrix_with_spectrum([1.0], seed=huge)
    with pytest.raises(ValueError, match="in_channels must be at"):
        rl.models.resnet20(in_channels=huge)
    with pytest.raises(ValueError, match="extra must be finite"):
        rl.bounds.maurer(0.1, 1.0, 100).with_terms(extra=huge)


@pytest.mark.parametrize("width", [1e-320, 1e-170])
def test_a_bandwidth_under_which_a_density_overflows_is_refused_without_a_warning(width, recwarn):
    density = rl.Spectrum.from_eigenvalues([3.0, 1.0]).density([2.0, 2.5], width)
    assert density.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="bandwidth must be larger"):
        rl.Spectrum.from_eigenvalues([3.0, 1.0]).density([1.0], 1e-320)
    assert not recwarn.list


def test_densities_and_matrices_of_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="weights must be finite"):
        rl.spectrum.spectral_density([0.1, 1.0], [1.0, math.inf], [0.5])
    with pytest.raises(ValueError, match="eigenvalues must be finite"):
        rl.matrix_with_spectrum([1.0, math.nan])


@pytest.mark.parametrize("alpha", [np.array(None), torch.ones((), device="meta"), torch.ones(3).to_sparse()])
def test_orders_without_values_are_refused_by_name(alpha):
    with pytest.raises(TypeError, match="alpha"):
        rl.Spectrum.from_eigenvalues([3.0, 1.0]).effective_number(alpha)


@pytest.mark.parametrize(
    "key", [1.0, np.ma.masked, np.ones(3), Fraction(1), ("trace",), ("trace", 1), [["trace"], "a"]]
)
def test_keys_of_reports_and_comparisons_are_texts(key, model, data):
    report = rl.sharpness_report(model, F.cross_entropy, data, num_matvecs=20, progress=False)
    for found in (report, rl.Comparison(report, report)):
        with pytest.raises(TypeError, match="key must be"):
            found[key]


@pytest.mark.parametrize("wrong", [Unprintable(), torch.ones(3), b"bytes", np.ones(2)])
def test_paths_dates_axes_and_correlations_are_checked_by_name(wrong, model, data):
    study = rl.study.Study(rl.study.Study.standard().records[::8])
    with pytest.raises(TypeError, match="path must be"):
        rl.study.Study.read(wrong)
    with pytest.raises(TypeError, match="tau must be"):
        study.null_distribution(num_permutations=5).plot(tau=wrong)
    with pytest.raises(TypeError, match="measure must be"):
        study.plot_measure(wrong)
    with pytest.raises(TypeError, match="axis of a setting"):
        _ = rl.study.Setting(architecture=wrong).key
    with pytest.raises(TypeError, match="date must be text"):
        rl.checkup(model, F.cross_entropy, data, num_matvecs=20, progress=False).to_html("page.html", date=wrong)


def test_data_parameters_and_directions_of_another_kind_are_refused_by_name(model, data):
    operator = rl.HessianOperator(model, F.cross_entropy, data)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*data))
    with pytest.raises(TypeError, match="data must be two tensors"):
        rl.study.standard_measure(model, F.cross_entropy, loader, initial_parameters={})
    with pytest.raises(TypeError, match="basis_dtype must be a dtype"):
        operator.estimate_cost(basis_dtype=torch.ones(3))
    with pytest.raises(TypeError, match="basis_dtype must be a dtype"):
        rl.estimate_spectrum(operator, basis_dtype=torch.ones(3))
    with pytest.raises(TypeError, match="direction"):
        rl.perturbation.loss_along(operator, torch.ones(17, device="meta"), [0.1])
    with pytest.raises(TypeError, match="scales must be a Mapping"):
        rl.widgets.ReparametrizationExplorer(operator, scales=torch.tensor(0.5))
    for wrong in (np.array(0.5), torch.tensor(0.5)):
        with pytest.raises(TypeError, match="params"):
            rl.hvp(F.cross_entropy(model(data[0]), data[1]), wrong, torch.ones(17))
        with pytest.raises(TypeError, match="params"):
            rl.ASAM(wrong, lr=0.1)


@pytest.mark.parametrize("wrong", [torch.nn.Linear, int, F.relu, lambda: 1.0])
def test_functions_that_do_not_map_eigenvalues_are_refused_by_name(wrong):
    with pytest.raises(TypeError, match="f must"):
        rl.Spectrum.from_eigenvalues([1.0, 2.0]).trace_of(wrong)


@pytest.mark.parametrize(
    "call",
    [
        lambda wrong: rl.train(rl.models.mlp(2, 2), (torch.ones(4, 2), torch.ones(4).long()), epochs=1, loss_fn=wrong),
        lambda wrong: rl.evaluate(rl.models.mlp(2, 2), (torch.ones(4, 2), torch.ones(4).long()), loss_fn=wrong),
    ],
)
@pytest.mark.parametrize("wrong", [1j, 0.5, "mse", torch.nn.MSELoss, Unprintable()])
def test_a_loss_that_cannot_be_called_is_refused_by_name(call, wrong):
    with pytest.raises(TypeError, match="loss_fn must be"):
        call(wrong)


@pytest.mark.parametrize("wrong", [torch.nn.Linear(2, 2), lambda x: x, F.relu, 1.0, Unprintable()])
def test_a_closure_that_needs_arguments_is_refused_by_name(wrong, model):
    optimizer = rl.SAM(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="closure"):
        optimizer.step(wrong)
    with pytest.raises(TypeError, match="closure must be a function without arguments"):
        rl.optim.amp_step(optimizer, torch.amp.GradScaler("cpu"), wrong)


def test_numbers_and_devices_of_operators_are_checked_by_name(model, data):
    operator = rl.HessianOperator(model, F.cross_entropy, data)
    assert math.isnan(operator.sum_over_ranks(math.nan))
    for wrong in (None, "text", torch.ones(1), Unprintable()):
        with pytest.raises(TypeError, match="number must be a real number"):
            operator.sum_over_ranks(wrong)
        with pytest.raises(TypeError if wrong != "text" else ValueError, match="device"):
            rl.operators.free_bytes(wrong)
        with pytest.raises(TypeError if wrong != "text" else ValueError, match="device"):
            rl.evaluate(model, data, device=[] if wrong is None else wrong)
    assert rl.operators.free_bytes("cpu") > 0


def test_a_sampled_loss_out_of_range_is_refused_under_its_own_name():
    with pytest.raises(ValueError, match="sampled_loss must lie in"):
        rl.bounds.sampled_pac_bayes(2.0, 1.0, 100, num_draws=5)
    with pytest.raises(ValueError, match="empirical_gibbs_loss must lie in"):
        rl.bounds.isotropic_pac_bayes(2.0, 1.0, 0.1, 100, num_draws=5)


@pytest.mark.parametrize("gamma", [1e-320, 1e-170, 5e-4])
def test_the_log_determinant_is_right_for_any_regularization(gamma, recwarn):
    values = [3.0, 1e-200, 0.5, 0.0]
    found = rl.sharpness.log_determinant(rl.Spectrum.from_eigenvalues(values), gamma).value
    with mpmath.workdps(60):
        true = float(mpmath.fsum(mpmath.log(1 + mpmath.mpf(value) / mpmath.mpf(gamma)) for value in values))
    assert found == pytest.approx(true, rel=1e-12)
    assert not recwarn.list


def test_a_grid_of_magnitudes_reaches_the_smallest_and_the_largest_numbers(recwarn):
    for values in ([5e-324, 1e-323], [1.0, 1.7e308]):
        grid = rl.Spectrum.from_eigenvalues(values).magnitude_grid(5)
        assert np.isfinite(grid).all()
        assert (grid > 0).all()
    assert not recwarn.list


def test_a_matrix_of_the_largest_numbers_is_finite():
    assert rl.matrix_with_spectrum([1e308, 1e308]).diagonal().tolist() == pytest.approx([1e308, 1e308])


@pytest.mark.parametrize("wrong", [np.timedelta64(1, "s"), np.array([True, False]), torch.ones(3)])
def test_numbers_and_axes_of_studies_are_checked_by_name(wrong):
    study = rl.study.Study.standard()
    with pytest.raises(TypeError, match="seed"):
        rl.models.mlp(2, 2, seed=wrong)
    with pytest.raises(TypeError, match="kl"):
        rl.bounds.maurer(0.1, wrong, 100)
    with pytest.raises(ValueError, match="no training has architecture="):
        study.select(architecture=wrong)
    with pytest.raises(TypeError, match="records"):
        rl.study.Study(wrong)
    with pytest.raises(TypeError, match="values must be a Mapping"):
        rl.study.Setting.checked(wrong, ["mlp"])


@pytest.mark.parametrize(
    "call",
    [
        lambda wrong: rl.bounds.waterfall(wrong),
        lambda wrong: rl.estimate_spectrum(torch.eye(3), data_error=wrong),
        lambda wrong: rl.course.load_network(dtype=wrong),
        lambda wrong: rl.train(rl.models.mlp(2, 2), (torch.ones(4, 2), torch.ones(4).long()), optimizer=wrong),
        lambda wrong: rl.study.Study.standard().plot_alpha(wrong),
        lambda wrong: rl.study.Study.standard().select(architecture=wrong),
        lambda wrong: rl.study.kendall_tau([1.0, 2.0], [1.0, 2.0], settings=[wrong, [1]]),
        lambda wrong: rl.SAM(rl.models.mlp(2, 2).parameters(), wrong, lr=0.1),
        lambda wrong: rl.widgets.RSAMExplorer(eigenvalues=wrong),
    ],
)
def test_a_value_that_cannot_be_printed_never_hides_the_message(call):
    with pytest.raises((TypeError, ValueError), match=r"cannot be printed|hashable"):
        call(Unprintable())


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(TypeError) as caught:
        rl.renyi_entropy([1.0], "x" * 10_000)
    assert len(str(caught.value)) < 500


def test_a_bound_against_a_fraction_can_be_shown():
    assert "trivial 0.3333" in repr(rl.bounds.maurer(0.1, 1.0, 100).against(Fraction(1, 3)))


@pytest.mark.parametrize("sigma", [0.0, 1e-170, 1e308, math.nan, math.inf])
def test_a_posterior_has_a_sigma_whose_square_is_a_number(sigma, model):
    with pytest.raises(ValueError, match="sigma must"):
        rl.posterior.GaussianPosterior(model, sigma)
    wide, narrow = (rl.posterior.GaussianPosterior(model, limit) for limit in (1e70, 1e-70))
    assert math.isfinite(wide.kl(narrow))
    assert math.isfinite(narrow.kl(wide))


def test_polynomials_that_overflow_are_refused_without_a_warning(recwarn):
    jacobi = rl.krylov.JacobiMatrix(np.array([1.0, 0.5, 0.2]), np.array([0.3, 0.1, 0.05]))
    with pytest.raises(ValueError, match="x must be smaller"):
        jacobi.polynomials(2, [1e300, 1e-300])
    assert not recwarn.list


def test_parts_of_a_spectrum_are_checked_by_name():
    with pytest.raises(TypeError, match="sampling must be a Sampling"):
        rl.Spectrum([1.0], [1.0], 1, sampling="text")
    with pytest.raises(TypeError, match="leaving_out must be a tuple"):
        rl.Spectrum([1.0], [1.0], 1, leaving_out=None)
    with pytest.raises(TypeError, match="exact must hold real numbers"):
        rl.widgets.LanczosExplorer(torch.eye(3).double(), exact=["a"])
    with pytest.raises(TypeError, match="model must be a Module"):
        rl.study.standard_measure(2.0, F.cross_entropy, (torch.ones(2, 2), torch.ones(2)), initial_parameters={})
    spectrum = rl.Spectrum.from_eigenvalues([3.0, 1.0])
    with pytest.raises(ValueError, match="radius"):
        rl.bounds.level_set_bounds(spectrum, 0.5, radius=1e308, alphas=[0.5], num_samples=100)


@pytest.mark.parametrize("function", ["weighted_escort", "entropy_influence"])
def test_multiplicities_without_a_positive_sum_are_refused(function, recwarn):
    with pytest.raises(ValueError, match="multiplicities must give positive sums"):
        getattr(rl.spectrum, function)(np.array([1.0, 0.5]), [0.0, 0.0], 0.5)
    with pytest.raises(ValueError, match="values must be non-negative"):
        getattr(rl.spectrum, function)([-1.0, 0.5], [1.0, 1.0], 0.5)
    assert not recwarn.list


def test_a_module_of_python_is_no_batch_of_tensors(model):
    with pytest.raises(TypeError, match="data"):
        rl.counterexamples.one_sam_gradients(rl.models.two_layer(3, 4), math, rho=0.05)
    with pytest.raises(TypeError, match="data"):
        rl.counterexamples.one_sam_gradients(rl.models.two_layer(3, 4), rl, rho=0.05)
    with pytest.raises(TypeError, match="batch"):
        rl.HessianOperator(model, F.cross_entropy, [rl])


@pytest.mark.parametrize("rho", [5e-324, 1e-308, 1e-3])
def test_the_bound_of_sam_is_right_for_any_radius(rho):
    found = rl.bounds.sam_bound(0.1, 0.5, rho, num_parameters=100, num_samples=100).value
    with mpmath.workdps(60):
        ratio = (mpmath.mpf(0.5) / mpmath.mpf(rho) * (1 + mpmath.sqrt(mpmath.log(100) / 100))) ** 2
        logs = 4 * mpmath.log(mpmath.mpf(100) / mpmath.mpf(0.05)) + 8 * mpmath.log(900)
        true = 0.1 + mpmath.sqrt((100 * mpmath.log(1 + ratio) + logs) / 99)
    assert found == pytest.approx(float(true), rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "axes", "error"),
    [
        (None, ["lr"], TypeError),
        ([1, 2], ["lr"], TypeError),
        ([{"lr": []}, {"lr": 1}], ["lr"], TypeError),
        ([{"lr": 1}, {"lr": 2}], None, TypeError),
        ([{"lr": 1}, {"lr": 2}], "lr", TypeError),
        ([{"lr": 1}, {"lr": 2}], ["width"], ValueError),
    ],
)
def test_settings_and_axes_of_correlations_are_checked_by_name(settings, axes, error):
    with pytest.raises(error, match=r"settings|axes"):
        rl.study.granulated_tau([1.0, 2.0], [1.0, 2.0], settings, axes)


@pytest.mark.parametrize("wrong", [np.array(1.0), np.float64(2)])
def test_an_array_without_dimensions_is_no_sequence_of_batches_or_choices(wrong, model, data):
    operator = rl.HessianOperator(model, F.cross_entropy, data)
    with pytest.raises(TypeError, match=r"data|batch"):
        operator.restricted(batches=wrong)
    with pytest.raises(TypeError, match=r"data|batch"):
        rl.HessianOperator(model, F.cross_entropy, wrong)
    with pytest.raises((TypeError, ValueError), match="lr"):
        rl.study.run_study({"lr": np.array(-1.0)}, data=(data, data))


def test_posteriors_refuse_models_without_values(model):
    with pytest.raises(ValueError, match="meta device"):
        rl.posterior.GaussianPosterior(model.to("meta"), 0.1)


@pytest.mark.parametrize("device", ["hpu", "meta", "nonsense", "", "cuda:99", 1.5])
def test_a_device_that_cannot_be_had_is_refused_by_name_and_the_model_stays(device, model, data):
    for call in (
        lambda: rl.train(model, data, epochs=1, device=device),
        lambda: rl.evaluate(model, data, device=device),
        lambda: rl.bounds.certify(lambda: model, data, epochs=1, num_draws=2, device=device),
    ):
        with pytest.raises((TypeError, ValueError), match="device"):
            call()
        assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_complex_labels_are_refused_by_name(model, data):
    pair = (data[0], data[1].to(torch.complex64))
    for call in (
        lambda: rl.exact_spectrum(rl.HessianOperator(model, F.cross_entropy, pair)),
        lambda: rl.train(model, pair, epochs=1),
        lambda: rl.evaluate(model, pair),
        lambda: rl.gibbs_error(model, pair, sigma=0.1, num_draws=2),
        lambda: rl.dense_hessian(model, F.cross_entropy, pair),
    ):
        with pytest.raises((TypeError, ValueError), match=r"targets|labels|data"):
            call()


def test_the_dense_hessian_takes_labels_of_fewer_bits_and_refuses_a_loss_that_is_not_finite(model, data):
    expected = rl.dense_hessian(model, F.cross_entropy, data)
    assert torch.equal(rl.dense_hessian(model, F.cross_entropy, (data[0], data[1].to(torch.uint8))), expected)
    with pytest.raises(ValueError, match="loss is not finite"):
        rl.dense_hessian(model, F.cross_entropy, (data[0], torch.full((6,), -100)))


@pytest.mark.parametrize("loss_fn", [torch.nn.Linear(2, 2), lambda outputs: outputs.sum(), lambda a, b, c: a.sum()])
def test_a_loss_takes_two_arguments(loss_fn, model, data):
    for call in (
        lambda: rl.HessianOperator(model, loss_fn, data),
        lambda: rl.dense_hessian(model, loss_fn, data),
        lambda: rl.train(model, data, epochs=1, loss_fn=loss_fn),
        lambda: rl.evaluate(model, data, loss_fn=loss_fn),
    ):
        with pytest.raises(TypeError, match="loss_fn must take two arguments"):
            call()


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantized_orders_are_refused_by_name():
    orders = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8)
    with pytest.raises(TypeError, match="alpha must hold real numbers"):
        rl.Spectrum.from_eigenvalues([2.0, 1.0]).renyi_entropy(orders)


@pytest.mark.parametrize("wrong", [torch.zeros(4, 4), "text", 3, [torch.ones(2)]])
def test_initial_parameters_of_a_measure_are_a_mapping(wrong, model, data):
    with pytest.raises(TypeError, match="initial_parameters must be"):
        rl.study.standard_measure(model, F.cross_entropy, data, initial_parameters=wrong)


def test_a_lazy_layer_without_weights_is_refused_by_name():
    with pytest.raises(ValueError, match="has no weights yet"):
        rl.perturbation.mixed(torch.nn.LazyLinear(2), torch.ones(3, 2), torch.eye(2))


def test_dtypes_that_torch_does_not_compute_in_are_refused_by_name(model, data):
    operator, coarse = rl.HessianOperator(model, F.cross_entropy, data), torch.ones(17).to(torch.float8_e4m3fn)
    for name, call in {
        "direction": lambda: rl.perturbation.filter_normalized(operator, coarse),
        "multiplicities": lambda: rl.spectrum.weighted_renyi_entropy(torch.ones(17).double(), coarse, 0.5),
    }.items():
        with pytest.raises(TypeError, match=f"{name}.* dtype that torch computes in"):
            call()


def test_weights_of_a_density_have_a_finite_sum():
    with pytest.raises(ValueError, match="weights must have a finite sum"):
        rl.spectrum.spectral_density(np.array([0.1, 1.0]), [1e308, 1e308], [0.0, 1.0])
