"""Fields of records have the types of their annotations."""

from __future__ import annotations

import dataclasses
import math
from random import Random

import numpy as np
import pytest
import torch
from fuzz.cases import Case, arguments_of
from fuzz.objects import IMPORTS, namespace_for
from fuzz.surface import targets

import renyi_lab as rl
from renyi_lab.krylov import Basis, JacobiMatrix, Storage, Subspace, block_lanczos, jacobi_matrix, shallow_probes

RECORDS = [
    target
    for target in targets()
    if target.kind == "class"
    and dataclasses.is_dataclass(target.function)
    and target.function not in (rl.study.Setting, rl.study.Record)
]
WRONG = {"bool": 1.0, "int": 1.5, "float": "0.5", "str": 2.0, "FloatArray": ["a"], "Tensor": [1.0]}


def made(target):
    """The arguments of a plausible record, as values."""
    names = {name: f"argument{i}" for i, (name, _) in enumerate(arguments_of(target, Random(0), 0))}
    sources = dict(arguments_of(target, Random(0), 0))
    namespace = {}
    exec(IMPORTS, namespace)
    call = Case(0, 0, target, "plausible", "", tuple(sources.items())).call
    namespace = namespace_for(call, namespace)
    return {name: eval(sources[name], namespace) for name in names}


@pytest.mark.parametrize("target", RECORDS, ids=lambda target: target.name.rpartition(".")[2])
def test_every_field_of_a_record_is_checked_by_name(target):
    given = made(target)
    target.function(**given)
    for field in dataclasses.fields(target.function):
        kind = str(field.type).removesuffix(" | None")
        if kind in WRONG:
            with pytest.raises((TypeError, ValueError), match=field.name):
                target.function(**given | {field.name: WRONG[kind]})


def test_numbers_of_records_become_those_of_python_and_may_be_nan():
    estimate = rl.Estimate(np.float32(0.5), math.nan, np.int64(3))
    assert type(estimate.value) is float
    assert type(estimate.num_matvecs) is int
    assert math.isnan(estimate.standard_error)
    with pytest.raises(ValueError, match="value must be finite"):
        rl.Estimate(10**400)


def test_sequences_of_records_become_tuples_of_numbers():
    history = rl.History([1, 0.5], [], [], [], 2, 0.1)
    assert history.train_loss == (1.0, 0.5)
    with pytest.raises(TypeError, match="each of train_loss must be a real number"):
        rl.History(["a"], [], [], [], 2, 0.1)


def test_arrays_of_records_belong_together():
    with pytest.raises(ValueError, match="diagonal and off_diagonal must be vectors of one length"):
        JacobiMatrix(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="steps and losses must be vectors"):
        rl.perturbation.LossCurve(np.ones(2), np.ones((2, 1)))
    with pytest.raises(ValueError, match="losses must have a row"):
        rl.perturbation.LossPlane(np.ones(2), np.ones(3), np.ones((3, 2)))
    with pytest.raises(ValueError, match="runs must hold"):
        rl.krylov.ShallowProbes(())


@pytest.mark.parametrize("wrong", [None, 1.5, "text", torch.ones(2, 2, 2), object()])
def test_inner_functions_of_krylov_check_their_arguments_by_name(wrong):
    operator = rl.MatrixOperator(torch.eye(4).double())
    basis = Basis(operator, 2)
    jacobi = JacobiMatrix(np.array([1.0, 0.5]), np.array([0.3, 0.1]))
    generator = torch.Generator()
    both = (TypeError, ValueError)
    with pytest.raises(both, match="vector"):
        basis.append(wrong)
    with pytest.raises(both, match="num_vectors"):
        basis.leading(wrong)
    with pytest.raises(both, match="rows"):
        basis.remove_from(wrong)
    with pytest.raises(both, match="operator"):
        Basis(wrong, 2)
    with pytest.raises(both, match="operator"):
        Storage().num_bytes(wrong, 1)
    with pytest.raises(both, match="basis"):
        Subspace(wrong, np.eye(3))
    with pytest.raises(both, match="x must"):
        jacobi.polynomials(1, wrong)
    with pytest.raises(both, match="num_nodes"):
        jacobi.gauss_rule(wrong)
    with pytest.raises(both, match=r"matrix|start"):
        jacobi_matrix(wrong, np.ones(2), 1, np.zeros((0, 2)))
    with pytest.raises(both, match="counts"):
        shallow_probes(operator, wrong, None, 0, generator)
    with pytest.raises(both, match="seed"):
        block_lanczos(operator, 1, 1, wrong, lambda: None)


def test_a_subspace_and_polynomials_stay_within_their_basis():
    basis = rl.lanczos(rl.MatrixOperator(torch.eye(4).double() * torch.arange(1.0, 5)), num_steps=3).vectors
    with pytest.raises(ValueError, match="coefficients must have the shape"):
        Subspace(basis, np.eye(4))
    with pytest.raises(ValueError, match="dim must be at most 2"):
        Subspace(basis, np.eye(3)[:2]).leading(3)
    with pytest.raises(ValueError, match="degree must be at most the number of couplings"):
        JacobiMatrix(np.ones(2), np.array([0.3, 0.0])).polynomials(2, np.ones(1))


def test_a_certificate_of_no_routes_or_of_other_bounds_can_be_shown():
    empty = rl.bounds.Certificate((), 0.05, 1, 1, 0.5)
    assert "no routes" in repr(empty) + empty._repr_html_()
    with pytest.raises(ValueError, match="routes is empty"):
        float(empty)
    route = rl.bounds.Route("own", "a network", rl.bounds.maurer(0.1, 1.0, 100), torch.nn.Linear(2, 2), None)
    assert "own certifies a network" in repr(rl.bounds.Certificate((route,), 0.05, 1, 1, 0.5))


def test_records_without_entries_can_be_shown_or_are_refused_by_name():
    assert rl.operators.Ascent(0.1, (), torch.ones(2)).loss == 0.1
    cost, spectrum = None, rl.Spectrum.from_eigenvalues([1.0, 0.5])
    assert repr(dataclasses.replace(checkup(), findings=[], cost=cost))
    with pytest.raises(ValueError, match="evidence must hold"):
        dataclasses.replace(rl.choose_alpha(spectrum), evidence={})


def checkup():
    data = torch.linspace(-1, 1, 12).reshape(6, 2), torch.tensor([0, 1, 0, 1, 1, 0])
    return rl.checkup(rl.models.mlp(2, 3, 2), torch.nn.CrossEntropyLoss(), data, num_matvecs=20, progress=False)
