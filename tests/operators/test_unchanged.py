"""Products inside `unchanged`, several vectors at once, and the precision of all."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from renyi_lab import HessianOperator, estimate_spectrum, lanczos, models, sharpness_report
from renyi_lab._utils import stored_values
from renyi_lab._utils.evaluation import _float32_settings, full_precision
from renyi_lab._utils.fingerprint import Fingerprint
from renyi_lab._utils.stored_values import StoredValues
from renyi_lab.operators import _batched_choice as batched
from renyi_lab.operators._batched_choice import BatchedChoice


def operator():
    torch.manual_seed(0)
    model = models.mlp(6, 5, 3).double()
    return HessianOperator(model, F.cross_entropy, (torch.randn(20, 6).double(), torch.randint(3, (20,))))


@pytest.fixture
def comparisons(monkeypatch):
    """How often the model was compared with what the kept graphs were built from."""
    found = []
    matches = Fingerprint.matches

    def counted(self, roots):
        found.append(roots)
        return matches(self, roots)

    monkeypatch.setattr(Fingerprint, "matches", counted)
    return found


def test_the_model_is_compared_once_inside_and_each_time_outside(comparisons):
    H = operator()
    v = torch.ones(H.dim, dtype=H.dtype)
    H @ v  # builds the graphs
    with H.unchanged(), H.unchanged():
        for _ in range(4):
            H @ v
        assert len(comparisons) == 1
    for _ in range(3):
        H @ v
    assert len(comparisons) == 4


def test_algorithms_compare_once(comparisons):
    H = operator()
    H @ torch.ones(H.dim, dtype=H.dtype)
    for algorithm in (lambda: lanczos(H, num_steps=8), lambda: estimate_spectrum(H, num_matvecs=30), H.to_dense):
        del comparisons[:]
        algorithm()
        assert len(comparisons) == 1


def test_changes_after_the_context_are_noticed_also_after_an_error():
    H = operator()
    v = torch.ones(H.dim, dtype=H.dtype)
    with pytest.raises(ValueError, match="shape"), H.unchanged():
        H @ v[1:]
    next(H.model.parameters()).data.mul_(2.0)
    fresh = HessianOperator(H.model, H.loss_fn, [batch.content for batch in H.batches])
    torch.testing.assert_close(H @ v, fresh @ v)


def test_a_block_that_is_made_inside_checks_for_itself(comparisons):
    H = operator()
    H @ torch.ones(H.dim, dtype=H.dtype)
    with H.unchanged():
        H @ torch.ones(H.dim, dtype=H.dtype)
        block = H.restricted("layer1.weight")
    del comparisons[:]
    for _ in range(3):
        block @ torch.ones(block.dim, dtype=H.dtype)
    assert len(comparisons) == 2  # the first product builds the graphs


@pytest.mark.parametrize("joined", [False, True])
def test_stored_values_see_every_change(monkeypatch, joined):
    monkeypatch.setattr(stored_values, "_joins_others", lambda tensor: joined)
    tensors = [torch.randn(3, 2), torch.tensor(4), torch.randn(2, dtype=torch.float64), torch.tensor([True, False])]
    tensors += [torch.tensor([1.0, float("nan")]), torch.randn(2, dtype=torch.complex64), torch.ones(2, 3).T]
    stored = StoredValues(tensors)
    assert stored.match([tensor.clone() for tensor in tensors])
    assert not stored.match(tensors[:-1])
    for index, tensor in enumerate(tensors):
        changed = [t.clone() for t in tensors]
        changed[index][(0,) * tensor.ndim] = 0 if tensor.dtype == torch.bool else 7
        assert not stored.match(changed)
    assert not stored.match([tensors[0].double(), *tensors[1:]])
    assert not stored.match([tensors[0].reshape(2, 3), *tensors[1:]])
    assert stored.match(tensors)


@pytest.mark.parametrize("joined", [False, True])
def test_stored_values_of_one_tensor_are_a_copy(monkeypatch, joined):
    monkeypatch.setattr(stored_values, "_joins_others", lambda tensor: joined)
    weight = torch.ones(3)
    stored = StoredValues([weight])
    weight.mul_(2)
    assert not stored.match([weight])
    assert StoredValues([]).match([])


class Products:
    """A symmetric matrix, and the sizes of the products that were asked for."""

    def __init__(self, fails=(), wrong=False):
        self.matrix = torch.diag(torch.arange(1.0, 6.0))
        self.sizes, self.fails, self.wrong = [], fails, wrong

    def __call__(self, rows):
        size = 1 if rows.ndim == 1 else len(rows)
        self.sizes.append(size)
        if size in self.fails:
            raise torch.OutOfMemoryError
        return rows @ self.matrix * (2.0 if self.wrong and rows.ndim == 2 else 1.0)


@pytest.fixture
def seconds(monkeypatch):
    """Seconds that a product takes by its number of vectors; without a GPU to wait for."""
    times = {}

    def timed(_device, work):
        result = work()
        return times[len(result) if isinstance(result, list) else 4]

    monkeypatch.setattr(batched, "_seconds", timed)
    return times


def chosen(product, num_vectors, seconds, at_once):
    seconds.update({2: 2.0, 4: at_once})
    choice, rows = BatchedChoice(), torch.randn(num_vectors, 5)
    torch.testing.assert_close(choice.products(product, rows), rows @ product.matrix)
    del product.sizes[:]
    torch.testing.assert_close(choice.products(product, rows), rows @ product.matrix)
    return product.sizes


def test_several_vectors_at_once_where_that_is_faster(seconds):
    assert chosen(Products(), 6, seconds, at_once=1.0) == [6]
    assert chosen(Products(), 70, seconds, at_once=1.0) == [32, 32, 6]
    assert chosen(Products(), 6, seconds, at_once=4.5) == [1] * 6
    assert chosen(Products(), 3, seconds, at_once=1.0) == [1] * 3  # too few to measure


def test_one_by_one_where_batches_fail_or_are_wrong(seconds):
    assert chosen(Products(fails=(4,)), 6, seconds, at_once=1.0) == [1] * 6
    assert chosen(Products(wrong=True), 6, seconds, at_once=1.0) == [1] * 6
    assert chosen(Products(fails=(32, 16)), 32, seconds, at_once=1.0) == [8] * 4


def test_deterministic_algorithms_take_vectors_one_by_one(seconds):
    torch.use_deterministic_algorithms(True)
    try:
        assert chosen(Products(), 6, seconds, at_once=1.0) == [1] * 6
    finally:
        torch.use_deterministic_algorithms(False)


def test_full_precision_turns_coarse_arithmetic_off_and_restores_it():
    settings = torch.backends.cudnn
    before = settings.allow_tf32
    try:
        for tf32 in (True, False):
            settings.allow_tf32 = tf32
            with full_precision():
                assert not settings.allow_tf32
            assert settings.allow_tf32 == tf32
    finally:
        settings.allow_tf32 = before


def test_full_precision_knows_the_newer_settings():
    convolutions = getattr(torch.backends.cudnn, "conv", None)
    if not hasattr(convolutions, "fp32_precision"):
        pytest.skip("torch 2.9 and later")
    matmul = torch.backends.cuda.matmul
    before = convolutions.fp32_precision, matmul.fp32_precision
    try:
        convolutions.fp32_precision = matmul.fp32_precision = "tf32"  # torch's older getters now refuse to answer
        with full_precision():
            assert convolutions.fp32_precision == matmul.fp32_precision == "ieee"
        assert convolutions.fp32_precision == matmul.fp32_precision == "tf32"
    finally:
        convolutions.fp32_precision, matmul.fp32_precision = before


def test_full_precision_leaves_every_setting_as_it_was():
    places = _float32_settings()
    if not places:
        pytest.skip("torch 2.9 and later")
    matmul = torch.backends.cuda.matmul
    before, tf32 = [settings.fp32_precision for settings in places], matmul.allow_tf32
    try:
        matmul.allow_tf32 = True  # unlike set_float32_matmul_precision, without effect on the CPU
        found = [settings.fp32_precision for settings in places]
        with pytest.raises(KeyError), full_precision():
            raise KeyError
        assert [settings.fp32_precision for settings in places] == found
    finally:
        matmul.allow_tf32 = tf32
        for settings, precision in zip(places, before, strict=True):
            settings.fp32_precision = precision


def test_an_attribute_with_another_name_is_noticed():
    model = models.mlp(6, 5, 3)
    model.doubled = True
    fingerprint = Fingerprint([model])
    assert fingerprint.matches([model])
    del model.doubled
    model.tripled = True
    assert not fingerprint.matches([model])


def test_operators_and_reports_state_their_precision():
    H = operator()
    assert H.precision == "float64 on cpu"
    assert H.precision in repr(H)
    data = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 1)
    report = sharpness_report(nn.Linear(2, 1), nn.MSELoss(), data, progress=False)
    assert "computed in float32 on cpu" in repr(report)
    assert "computed in float32 on cpu" in report._repr_html_()
