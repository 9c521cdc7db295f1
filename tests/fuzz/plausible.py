"""Plausible arguments by the name of the parameter: what a reader of the documentation might pass."""

from __future__ import annotations

# Names of parameters and their values everywhere else.
NAMED = """
a: model
alpha: 0.5 | 1.0 | 1.5 | 2 | 3.0
alphas: [0.5, 1.0, 2.0] | (1.5,)
angles: [0, 90] | (0, 15, 30)
architectures: ['mlp', 'cnn1d']
assumptions: ('i.i.d.',)
ax: ax
b, initial, more: model_b
bandwidth, empirical_gibbs_loss: 0.1 | 0.5
base: torch.optim.SGD | torch.optim.AdamW
base_kwargs, increase, options: 0.1
batch_mass: None | lambda batch: len(batch[1])
batch_size: 2 | 6 | 4
batches, exact, layers, sampling, third: None
beside, levels, moving, routes: ()
betas: [1.0, 10.0]
blocks: True | False | ['0']
bounds: {'a': bound} | (bound,)
build_graph, on_step: lambda: None
c, prior_variance, radius: 0.1 | 1.0
choice: rl.choose_alpha(spectrum)
choices: 1 | 5
chosen, max_norm: None | 1.0
classifier, model: model
closure: closure
corr_noise_scale, test_fraction: 0.25
counts: [3, 2]
curves: {'a': {0.5: 1.0}}
damping: 0.3 | 1.0
data: data | data_set | [data] | loader
data_errors: {0.5: 0.1}
data_set, train_set: data | data_set
date: '2026-01-01'
deflate: torch.eye(4)[:1].double() | None
degree, widths: 2
delta: 0.05 | 0.01
device: 'cpu' | torch.device('cpu')
dim: 4 | 17 | 100
dips: ((0.1, 0.2),)
direction, perturbation, second, vector: vector
directions: {'up': vector}
dtype: torch.float32 | torch.float64
eigenvalues: [3.0, 1.0, 0.5, -0.2] | np.arange(1.0, 5.0)
empirical_loss: 0.1 | 0.0 | 0.5
entropy: 1.0 | 0.0 | 2.0
epochs, num_directions, num_probes, power, step: 1 | 2
evidence: {'top_share': 0.5}
f: np.abs | np.square
family: 'architecture' | 'width'
figure: fig
findings, outside: []
first: weights
first_steps: [-0.1, 0.0, 0.1]
form: 'paper' | None
frame: study.to_frame().reset_index()
function: None | math.sqrt
gap: 'loss' | 'error'
gaps: {'loss': 'loss_gap'} | ['loss_gap']
generator: generator
grads: grads
graph_budget: 0 | 10**6 | None
grid: [-1.0, 0.0, 1.0] | np.linspace(0.1, 4, 9)
group: optimizer.param_groups[0]
groups: [optimizer.param_groups[0]] * len(params)
h: x
height: 3.0 | 1.0
hessian: operator | matrix | matrix_operator
highlight: None | 'operators'
histories: {'a': history}
in_features: 3 | 40
index, sample, warmup_epochs: 0 | 1
indices: [0] | slice(1)
initial_parameters: dict(model_b.named_parameters()) | list(model_b.parameters())
keep: (1,) | ()
kept_out: torch.zeros(0, 4).double()
kl: 0.0 | 3.0 | 50.0
label_noise, standard_error: 0.0 | 0.1
labels: ('a', 'b')
layer: 'layer1' | 'layer2'
line: record.to_line()
log_determinant: -5.0 | 3.0
log_volume: -40.0
loss: F.cross_entropy(model(x), y)
loss_fn: F.cross_entropy | torch.nn.CrossEntropyLoss()
loss_style: None | 'output_target'
losses: [0.5, 0.4]
lr: 0.1 | 0.01
matrix: torch.eye(2) | matrix
max_alpha: 4.0 | 2.0
max_rho: 1.0
max_translation: 0 | 48
measure: 'renyi_sharpness'
measures: ['trace', 'lambda_max'] | None
min_accuracy: 0.0 | 0.5 | 0.97
mode: 'eval' | 'train'
model_factory: lambda: rl.models.mlp(2, 3, 2)
models: {'mlp': lambda width, seed: rl.models.mlp(2, width, 2, seed=seed)}
module: model[0]
momentum: 0.9 | 0.0
multiplicities: np.array([1.0, 3.0])
n_jobs: 1 | None
name: 'layer1'
networks: {}
nodes: np.array([0.1, 1.0])
noise: 'ball' | 'gaussian'
norm: None | 'layer'
normalization: 'absolute' | 'positive'
notebook: {'cells': []}
num_draws: 2 | 10 | 100
num_eigenvectors: 0
num_errors: 0 | 3
num_features: 3 | 30
num_matvecs: 5 | 20 | 40
num_nodes: 2 | 3
num_parameters: 100
num_permutations, num_test: 5
num_points: 5 | 50
num_samples: 100 | 1000 | 20
num_sigmas, steps: 1 | 3
num_splits, size: 3
num_steps: 1 | 2 | 3
on_products: lambda count: None
operator: operator | ggn
optimizer: optimizer
other: report
outputs: model(x)
p: [0.5, 0.25, 0.25] | np.array([1.0, 2.0, 0.0]) | torch.tensor([0.2, 0.8])
param_group: {'params': list(model_b.parameters())}
parameters, tensors: params
params: None | ['layer1']
path: folder / 'a.npz' | str(folder / 'b')
perturbations: [vector]
point: (0.5, 1.3)
precision: 'single'
prior: posterior
prior_fraction: 0.5
prior_variances: [0.1, 1.0]
progress: False | None
q: 0.0 | 0.1 | 0.5
quantity: 'test_accuracy' | 'train_loss'
rates: [0.5, 1.0]
records: study.records[:4]
reduction: None | 'mean'
regularization: 0.0005 | 1.0
report: report | None
rho: 0.05 | 0.5
rhos, sigmas: [0.05, 0.1]
run: block_run
runs: (jacobi,)
scale: None | torch.ones(17)
scaler: torch.amp.GradScaler('cpu')
scales: [2.0, 0.5] | {'layer1': 2.0, 'layer2': 0.5}
scheduler: None | 'cosine'
scheme: 'one-sided' | 'central'
second_steps: [0.0, 0.2] | None
seed: 0 | 1 | 7
setting: rl.study.Setting()
settings: ['a', 'a', 'b', 'b']
sigma: 0.1 | 0.05
source: operator | matrix
spectra: {'all': spectrum}
spectrum: spectrum | positive | estimated
squared_distance: 0.0 | 2.0
start: None | torch.ones(4).double()
state_dict: optimizer.state_dict()
status: 'ok'
studies: {'a': study}
study: study
surface: surface
t: 0.5 | 0.0
target_error: 0.5 | None
targets: 'classes' | 'signs'
tau: 0.5 | -0.1
terms: {'kl': 0.5}
test_set: data | None
title: 'A title'
trace: 5.0 | 1.0
trivial_value: 1.0 | 0.9
tuning: rl.course.load_results('base_optimizers')['tuning']
warmup_steps: 0 | 2
weight: params[0]
weight_decay: 0.0 | 0.01
weights: [0.5, 0.5]
worst_loss: 0.1 | 0.4
x: [1.0, 2.0, 3.0, 4.0]
y: [1.0, 3.0, 2.0, 4.0]
"""

# By the annotation, or part of it, for all other parameters.
ANNOTATED = """
bool: True | False
int: 1 | 2 | 5
float: 0.5 | 1.0 | 0.1
Spectrum: spectrum
QuadratureRule: spectrum.last_rule
Basin: basin
Bound: bound
ModelOperator: operator
LinearOperator: matrix_operator
Module: model
FloatArray: np.array([0.5, 0.25])
ArrayLike: [0.5, 0.25]
Tensor: vector
Sequence[float]: [0.5, 0.25]
float, ...: (0.5, 0.25)
Mapping: {}
dict: {}
tuple: ()
str: 'text'
Callable: lambda *args: 1.0
PathLike: folder / 'c'
SharpnessReport: report
Study: study
Measurement: record.measurement
Path: folder / 'c'
NDArray[np.bool_]: np.array([True, False])
"""
