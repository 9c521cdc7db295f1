"""Plausible arguments of single functions and classes, where a parameter's name means something else than usual."""

from __future__ import annotations

# Names of parameters, and their values as source, separated by bars; where a regular expression finds the target.
SPECIAL = """
alpha of AlphaExplorer: 0.5 | 1.0 | 2
name of random_subset: 'num_samples'
layer of PerturbationExplorer: 'layer1'
loss of Evaluation$: 0.5
accuracy of Evaluation$: None | 0.5
nodes of (Spectrum|QuadratureRule)$: np.array([0.1, 1.0])
weights of (Spectrum|QuadratureRule)$: np.array([3.0, 1.0])
dim of (Spectrum|QuadratureRule)$: 4
sampling of Spectrum$: None
leaving_out of Spectrum$: ()
off_diagonal of Tridiagonal$|JacobiMatrix$: np.array([0.5, 0.25])
vectors of Tridiagonal$: basis | None
source of bounds.Bound$: 'Author 2000'
source of sharpness.Measure$: 'Author 2000'
value of bounds.Bound$: 0.5
function of sharpness.Measure$: rl.sharpness.trace
function of Feedback$: None | math.sqrt
status of Feedback$: 'not yet' | 'solved'
matrix of BlockTridiagonal$: np.ones((4, 2))
start of BlockTridiagonal$: np.eye(2)
converged of GaussRule$: np.array([True, False])
log_frobenius_squared, log_trace of CollisionEntropyPenalty: torch.tensor(1.0)
steps of LossCurve$: [0.0, 0.1]
second_steps of LossPlane$: [0.0, 0.1, 0.2]
eigenvalues of LowRankCurvature$: torch.ones(1).double()
directions of LowRankCurvature$: torch.eye(4)[:1].double()
noise of Sampling$: 0.0
half, last of Sampling$: spectrum.last_rule
levels of Sampling$: (spectrum.last_rule, spectrum.last_rule)
fit, spread, shrink of Sampling$: np.ones(2)
polynomials, covariance of Sampling$: np.eye(2)
gaps of FrameRecord$: {'loss': 0.1}
measurement of Record$: rl.study.Measurement()
train_loss, train_accuracy, test_loss, test_accuracy of Record$: 0.5
setting of Record$: rl.study.Setting()
basis of Subspace: basis | rounded
capacity of Basis: 2 | 5
coefficients of Basis.remove: None | np.eye(3)[:2]
coefficients of Subspace: np.eye(3)[:2]
dim of Subspace.leading: 1 | 2
dtype of Storage: None | torch.bfloat16 | torch.float32
num_vectors of Basis|Storage: 1 | 3
operator of Basis|Storage: matrix_operator
place of Storage: 'device' | 'cpu'
rows of Basis|Subspace: torch.eye(4).double() | torch.ones(4).double()
storage of Basis: None | rl.krylov.Storage('cpu', torch.bfloat16)
vector of Basis: torch.ones(4).double()
batches of random_subset|without_groups: operator.batches
step of LanczosExplorer: 1
most_groups of without_groups: 2
directions of PerturbationExplorer: {'turn': torch.eye(2)}
a of Explorer|renyi_lab.compare: model
a, b of renyi_lab.Comparison: report
a, b of renyi_theorem: 1.5 | 0.5
alpha of SAGM: 0.001 | 0.1
attempt of otherwise: 0.5 | None
axes of FrameRecord: {'width': 3}
axes of Study.select: 'mlp'
axes of granulated_tau: ['width']
base of Ascent: 0.5
beta of laplace_kl: 1.0 | 10.0
bounds of .*BoundReport: (bound, bound)
cost of Checkup: checkup.cost
curvature of GaussianPosterior: None | curvature
data of dense_hessian: data
data of one_sam_gradients|sign_accuracy|to_interpolation: signs
data of run_study: (data, data) | None
data_set of Study.standard|standard_data: 'mnist1d' | 'mnist1d_noisy'
eigenvalues of RSAM: (4.0, 1.0) | (2.0, 0.5)
evidence of AlphaChoice: rl.choose_alpha(estimated).evidence
first of .*combine: grads
grid of run_study: {'width': [3], 'epochs': [1]} | {'lr': [0.1]}
initial_parameters of standard_measure: dict(model_b.named_parameters())
kept_out of jacobi: np.eye(4)[3:]
labels of Landscape: ('a', 'b', 'third')
scales of Explorer: None | {'layer1': 2.0}
third of Explorer: None
hessian of Explorer: operator
loss of AverageCase|WorstCase: 0.5 | 0.1
losses of Ascent: (0.1, 0.2)
losses of LossPlane: np.ones((3, 3))
matrix of Block: matrix.numpy()
matrix of discrepancy|mixed|weight_p: torch.eye(2) | torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
matrix of jacobi_m: matrix.numpy()
measure of ShallowProbes: jacobi
measure of run_study: None | lambda *a, **k: {'one': 1.0}
measures of Study.from_frame: ['trace']
model of .*sign_acc|.*one_sam|to_interp: two_layer
multiplicities of weighted_renyi: torch.tensor([1.0, 3.0])
noise of certify: 0.05
norm of .*sharpness|ascend|worst|WorstCase|rise|float: 'l2' | 'linf'
num_draws of .*certify: 100 | 200
num_samples of mnist1d: 100
operator of block|shallow: matrix_operator
operator of hutch|lanczos|power|as_op|estimate|exact|leading: operator | matrix | matrix_operator | ggn
optimizer of train: 'sgd' | 'sam' | torch.optim.SGD | rl.RSAM
p of kl: 0.5 | 0.2 | 1.0
params of .*(combine|scales|perturbation)|Sharp: params
params of .*SAM|.*SAGM: params
params of hvp: params
path of Study.read: folder / 'none'
path of WorstCase: (0.1, 0.2)
path of run_study: None | folder / 'a.jsonl'
scale of .*density: 'linear' | 'log'
scale of ascend: torch.ones(17)
settings of Study: ['width']
settings of base_def: 0.1
settings of granulated: [{'width': i % 2} for i in range(4)]
spectrum of level_set_bounds|log_determinant: positive | estimated | spectrum
spectrum of renyi_lab.Checkup$: spectrum | None
start of Block: np.ones((4, 2))
start of jacobi: np.eye(4)[0]
step of Difference: 0.01
steps of .*(loss_along|Curve): [-0.1, 0.0, 0.1]
subject of Checkup: checkup.subject
terms of Bound.with: 0.5
test_data of LandscapeExplorer: data
train_set of memor|train_one: signs
values of Measurement: {'a': 1.0}
values of Setting: {'width': 3}
values of weighted_renyi: torch.tensor([1.0, 0.5])
values of weighted|entropy_i: np.array([1.0, 0.5])
weights of LossSurface: weights
whole, moved, prior, start of CertificateNetworks: model
width of new_figure: 4.0
x of Jacobi: np.array([0.1, 0.5])
x of TwoLayer: torch.ones(2, 3)
"""
