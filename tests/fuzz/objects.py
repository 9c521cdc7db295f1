"""Small objects that fuzzed calls are given, as source text, so that a failing call can be printed and run anywhere."""

from __future__ import annotations

import ast
from typing import Any

IMPORTS = """\
import collections, copy, datetime, decimal, fractions, functools, importlib, math, pathlib, random, tempfile
import numpy as np
import torch
import renyi_lab as rl
"""

# In the order of their definition: each may use those above it.
OBJECTS = {
    "F": "torch.nn.functional",
    "plt": "importlib.import_module('matplotlib.pyplot')",
    "pd": "importlib.import_module('pandas')",
    "folder": "pathlib.Path(tempfile.mkdtemp())",
    "x": "torch.linspace(-1, 1, 12).reshape(6, 2)",
    "y": "torch.tensor([0, 1, 0, 1, 1, 0])",
    "data": "(x, y)",
    "data_set": "torch.utils.data.TensorDataset(x, y)",
    "loader": "torch.utils.data.DataLoader(data_set, batch_size=4)",
    "model": "rl.models.mlp(2, 3, 2)",
    "model_b": "rl.models.mlp(2, 3, 2, seed=1)",
    "smooth": "rl.models.mlp(2, 3, 2, activation='tanh')",
    "double": "rl.models.mlp(2, 3, 2, seed=2).double()",
    "params": "list(model.parameters())",
    "grads": "[torch.full_like(p, 0.1) for p in params]",
    "weights": "torch.linspace(-1, 1, 17)",
    "vector": "torch.linspace(1, 2, 17)",
    "operator": "rl.HessianOperator(model, F.cross_entropy, data)",
    "ggn": "rl.GGNOperator(smooth, F.cross_entropy, data)",
    "matrix": "torch.diag(torch.tensor([2.0, 1.0, 0.5, -0.25], dtype=torch.float64))",
    "matrix_operator": "rl.MatrixOperator(matrix)",
    "surface": "rl.operators.LossSurface(operator)",
    "spectrum": "rl.Spectrum.from_eigenvalues([3.0, 1.0, 0.5, -0.2])",
    "positive": "rl.Spectrum.from_eigenvalues([3.0, 1.0, 0.5])",
    "many": "rl.matrix_with_spectrum(1 / np.arange(1.0, 81.0))",
    "estimated": "rl.estimate_spectrum(many, num_matvecs=40, progress=False)",
    "tridiagonal": "rl.lanczos(matrix_operator, num_steps=3)",
    "basis": "rl.lanczos(matrix_operator, num_steps=3).vectors",
    "rounded": "rl.lanczos(matrix_operator, num_steps=3, basis='cpu', basis_dtype=torch.bfloat16).vectors",
    "subspace": "rl.krylov.Subspace(basis, np.eye(3)[:2])",
    "block_run": "rl.krylov.block_lanczos(matrix_operator, 2, 2, 0, lambda: None)",
    "jacobi": "rl.krylov.JacobiMatrix(np.array([1.0, 0.5, 0.2]), np.array([0.3, 0.1, 0.05]))",
    "generator": "torch.Generator().manual_seed(0)",
    "shallow": "rl.krylov.shallow_probes(matrix_operator, [3, 2], torch.eye(4)[3:].double(), 1, generator)",
    "closure": "lambda: backward(F.cross_entropy(model(x), y))",
    "backward": "lambda loss: (loss.backward(), loss.detach())[1]",
    "optimizer": "rl.SAM(params, rho=0.05, lr=0.1)",
    "basin": "rl.bounds.Basin(0.1, 17, -40.0)",
    "bound": "rl.bounds.maurer(0.1, 20.0, 1000)",
    "report": "rl.sharpness_report(model, F.cross_entropy, data, num_matvecs=20, progress=False)",
    "checkup": "rl.checkup(model, F.cross_entropy, data, num_matvecs=20, progress=False)",
    "history": "rl.train(copy.deepcopy(model), data_set, epochs=1)",
    "plain_study": "rl.study.Study.standard()",
    "study": "rl.study.Study(plain_study.records[::8])",
    "record": "plain_study.records[0]",
    "curvature": "rl.posterior.leading_curvature(ggn, 2, num_matvecs=10)",
    "posterior": "rl.posterior.GaussianPosterior(smooth, 0.1, curvature, 1.0)",
    "two_layer": "rl.models.two_layer(3, 4, seed=0)",
    "signs": "rl.datasets.xor(num_samples=6, num_features=3, num_test=4, targets='signs')[0]",
    "fig": "rl.plots.new_figure()",
    "ax": "fig.subplots()",
    "feedback": "rl.exercises.Feedback('not yet', 'A hint.', None)",
    "Evil": "type('Evil', (), dict.fromkeys(('__eq__', '__bool__', '__iter__', '__index__'), lambda *_: 1 / 0))",
    "Odd": "type('Odd', (), dict.fromkeys(('__float__', '__array__', '__repr__', '__len__'), lambda *_, **__: 1 / 0))",
}

# Costly to make and never changed: made once in a process.
SHARED = frozenset({"F", "plt", "pd", "plain_study", "study", "record", "report", "checkup"})
# The `self` of fuzzed methods, by class; other classes are constructed from values for their parameters.
INSTANCES = {
    "Spectrum": ("spectrum", "estimated", "positive"),
    "QuadratureRule": ("spectrum.last_rule", "estimated.last_rule"),
    "HessianOperator": ("operator",),
    "GGNOperator": ("ggn",),
    "ModelOperator": ("operator", "ggn"),
    "KeptGraphOperator": ("operator", "ggn"),
    "LinearOperator": ("matrix_operator", "operator"),
    "MatrixOperator": ("matrix_operator",),
    "LossSurface": ("surface",),
    "Tridiagonal": ("tridiagonal",),
    "Basis": ("basis", "rounded"),
    "Storage": ("rl.krylov.Storage()", "rl.krylov.Storage('cpu', torch.bfloat16)"),
    "Subspace": ("subspace", "rl.krylov.Subspace(rounded, np.eye(3)[:2])"),
    "BlockTridiagonal": ("block_run",),
    "JacobiMatrix": ("jacobi",),
    "ShallowProbes": ("shallow",),
    "SharpnessReport": ("report",),
    "Comparison": ("rl.Comparison(report, report)",),
    "Checkup": ("checkup",),
    "History": ("history",),
    "Study": ("study",),
    "Record": ("record",),
    "FrameRecord": ("rl.study.FrameRecord({'width': 3}, {'loss': 0.1}, record.measurement)",),
    "Measurement": ("record.measurement",),
    "Bound": ("bound",),
    "GaussianPosterior": ("posterior",),
    "LowRankCurvature": ("curvature",),
    "TwoLayer": ("two_layer",),
    "Certificate": (
        "rl.bounds.certify(lambda: model, data, epochs=1, num_draws=100, num_directions=2, progress=False)",
    ),
    "CollisionEntropyPenalty": (
        "rl.optim.collision_entropy_penalty(F.cross_entropy(smooth(x), y), smooth.parameters(), generator=generator)",
    ),
    "NullDistribution": ("study.null_distribution(num_permutations=5)",),
    "SplitHalf": ("study.split_half(num_splits=3)",),
    "DiscrepancyCurve": ("rl.perturbation.discrepancy_curve(operator, 'layer1', torch.eye(2), [0.1])",),
    "LossCurve": ("rl.perturbation.loss_along(operator, vector, [0.0, 0.1])",),
    "LossPlane": ("rl.perturbation.loss_plane(operator, vector, weights, [0.0, 0.1])",),
    "Feedback": ("feedback",),
    "CourseNetwork": ("rl.course.load_network()",),
    "CertificateNetworks": ("rl.course.load_certificate_networks()",),
    "Ascent": ("rl.operators.Ascent(0.1, (0.2, 0.3), vector)",),
} | {name: (f"rl.{name}(params, rho=0.05, lr=0.1)",) for name in ("SAM", "ASAM", "FisherSAM", "SAGM", "RSAM")}


def names_in(source: str) -> list[str]:
    """The objects that a piece of source uses, directly or through others, in the order of their definition."""
    used: set[str] = set()
    todo = [source]
    while todo:
        found = {node.id for node in ast.walk(ast.parse(todo.pop())) if isinstance(node, ast.Name)} & OBJECTS.keys()
        todo += [OBJECTS[name] for name in found - used]
        used |= found
    return [name for name in OBJECTS if name in used]


_shared: dict[str, Any] = {}


def namespace_for(source: str, base: dict[str, Any]) -> dict[str, Any]:
    """The imported modules in ``base``, and new copies of the objects that a piece of source uses."""
    namespace = dict(base)
    for name in names_in(source):
        if name not in _shared:
            value = eval(OBJECTS[name], namespace)
            if name not in SHARED:
                namespace[name] = value
                continue
            _shared[name] = value
        namespace[name] = _shared[name]
    return namespace


def definitions(source: str) -> str:
    """The lines that define the objects used by a piece of source."""
    return "".join(f"{name} = {OBJECTS[name]}\n" for name in names_in(source))
