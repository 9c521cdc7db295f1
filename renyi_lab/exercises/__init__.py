"""Checkers of the notebooks' exercises: each answers with a hint, not only with a verdict."""

from renyi_lab.exercises._bounds import (
    check_best_prior_variance,
    check_entropy_against_determinant,
    check_gaussian_kl,
    check_kl_inverse,
    check_samples_needed,
)
from renyi_lab.exercises._budgets import check_claims, check_cost_plan, check_error_shares
from renyi_lab.exercises._calibration import check_calibration, check_deflation
from renyi_lab.exercises._choices import check_best_of_many, check_pooled_tau, check_within_tau
from renyi_lab.exercises._comparisons import check_chance_of_lead, check_equal_gradients
from renyi_lab.exercises._correlation import check_bootstrap, check_kendall
from renyi_lab.exercises._counterexamples import (
    check_gram_eigenvalues,
    check_minimal_trace,
    check_one_sam_point,
    check_output_gradients,
    check_rescaled_unit,
)
from renyi_lab.exercises._effective_number import check_effective_number, check_spectrum_entropy
from renyi_lab.exercises._entropy import check_crossing, check_entropy_changes, check_weighted_entropy
from renyi_lab.exercises._error_budget import check_error_budget
from renyi_lab.exercises._feedback import Feedback
from renyi_lab.exercises._hessian_products import check_finite_difference, check_hessian_product
from renyi_lab.exercises._lanczos import check_lanczos, check_orthogonalization
from renyi_lab.exercises._landscapes import check_ball_factors, check_climb, check_filter_normalized, check_kink
from renyi_lab.exercises._limits import check_entropy_range, check_too_many_directions
from renyi_lab.exercises._own_model import check_jackknife, check_product_errors
from renyi_lab.exercises._perturbations import (
    check_convolution_weight,
    check_equal_weight,
    check_kappa,
    check_neuron_flatness,
)
from renyi_lab.exercises._products import check_batched_product, check_central_difference
from renyi_lab.exercises._quadrature import check_probes_needed, check_slq
from renyi_lab.exercises._rescaling import check_rescaled_hessian
from renyi_lab.exercises._rsam import (
    check_constant,
    check_divergence_perturbation,
    check_loss_scale,
    check_paper_perturbation,
    check_power_ratio,
)
from renyi_lab.exercises._sam_family import check_sagm_gradient, check_sam_over_base
from renyi_lab.exercises._sam_step import check_sam_step
from renyi_lab.exercises._sharpness import check_layer_sharpness, check_renyi_sharpness
from renyi_lab.exercises._start import check_renyi_entropy, check_two_groups

__all__ = [
    "Feedback",
    "check_ball_factors",
    "check_batched_product",
    "check_best_of_many",
    "check_best_prior_variance",
    "check_bootstrap",
    "check_calibration",
    "check_central_difference",
    "check_chance_of_lead",
    "check_claims",
    "check_climb",
    "check_constant",
    "check_convolution_weight",
    "check_cost_plan",
    "check_crossing",
    "check_deflation",
    "check_divergence_perturbation",
    "check_effective_number",
    "check_entropy_against_determinant",
    "check_entropy_changes",
    "check_entropy_range",
    "check_equal_gradients",
    "check_equal_weight",
    "check_error_budget",
    "check_error_shares",
    "check_filter_normalized",
    "check_finite_difference",
    "check_gaussian_kl",
    "check_gram_eigenvalues",
    "check_hessian_product",
    "check_jackknife",
    "check_kappa",
    "check_kendall",
    "check_kink",
    "check_kl_inverse",
    "check_lanczos",
    "check_layer_sharpness",
    "check_loss_scale",
    "check_minimal_trace",
    "check_neuron_flatness",
    "check_one_sam_point",
    "check_orthogonalization",
    "check_output_gradients",
    "check_paper_perturbation",
    "check_pooled_tau",
    "check_power_ratio",
    "check_probes_needed",
    "check_product_errors",
    "check_renyi_entropy",
    "check_renyi_sharpness",
    "check_rescaled_hessian",
    "check_rescaled_unit",
    "check_sagm_gradient",
    "check_sam_over_base",
    "check_sam_step",
    "check_samples_needed",
    "check_slq",
    "check_spectrum_entropy",
    "check_too_many_directions",
    "check_two_groups",
    "check_weighted_entropy",
    "check_within_tau",
]
