"""Python threads that share a model and the global random generators: results and state are those of one thread."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from renyi_lab import models
from renyi_lab._utils.exclusive import exclusive
from renyi_lab._utils.random import generator_states, preserved_rng, rng_restored_after
from renyi_lab.operators import HessianOperator, LossSurface
from renyi_lab.perturbation import average_case_loss
from renyi_lab.posterior import gibbs_error
from renyi_lab.sharpness import sharpness_report
from renyi_lab.spectrum import exact_spectrum
from renyi_lab.training import evaluate, train

THREADS = 4


def data(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, (x[:, 0] > 0).long()


class Net(nn.Module):
    """A network with dropout, which draws from torch's global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.body = models.mlp(3, 6, 2).double()
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.dropout(x))


def at_once(call: Callable[[], Any]) -> list[Any]:
    """The results of ``call`` from several threads that begin together."""
    start = threading.Barrier(THREADS)

    def waiting() -> Any:
        start.wait(10)
        return call()

    with ThreadPoolExecutor(THREADS) as pool:
        return [future.result() for future in [pool.submit(waiting) for _ in range(THREADS)]]


def test_trainings_in_threads_give_the_weights_of_one_thread_and_restore_the_generators() -> None:
    def trained() -> list[Any]:
        net = Net()
        history = train(net, data(), epochs=3, batch_size=8, seed=1)
        return [history.train_loss, *(p.tolist() for p in net.parameters())]

    alone, before = trained(), generator_states()
    assert at_once(trained) == [alone] * THREADS
    assert generator_states() == before


@pytest.mark.parametrize(
    "call",
    [
        lambda net: exact_spectrum(HessianOperator(net, nn.functional.cross_entropy, data())).magnitudes.tolist(),
        lambda net: evaluate(net, data()).loss,
    ],
    ids=["exact_spectrum", "evaluate"],
)
def test_a_shared_model_keeps_its_mode_gradients_and_weights(call: Callable[[nn.Module], Any]) -> None:
    net = Net()
    gradients = [torch.ones_like(p) for p in net.parameters()]
    for p, gradient in zip(net.parameters(), gradients, strict=True):
        p.grad = gradient
    weights = [p.tolist() for p in net.parameters()]
    alone = call(net)
    assert at_once(lambda: call(net)) == [alone] * THREADS
    assert all(module.training for module in net.modules())
    assert all(p.grad is gradient for p, gradient in zip(net.parameters(), gradients, strict=True))
    assert [p.tolist() for p in net.parameters()] == weights


def test_products_of_one_operator_in_threads_are_those_of_one_thread() -> None:
    H = HessianOperator(Net(), nn.functional.cross_entropy, data())
    v = torch.linspace(-1, 1, H.dim, dtype=torch.float64)
    alone = H @ v
    assert all(torch.equal(product, alone) for product in at_once(lambda: H @ v))


def test_another_thread_enters_after_the_block_and_the_same_thread_at_once() -> None:
    entered = threading.Event()

    def second() -> None:
        with preserved_rng():
            entered.set()

    other = threading.Thread(target=second)
    with exclusive():
        with exclusive(), preserved_rng():
            other.start()
            assert not entered.wait(0.1)
        assert not entered.wait(0.1)
    assert entered.wait(10)
    other.join()


def test_an_error_inside_frees_the_lock() -> None:
    with pytest.raises(KeyError), exclusive():
        raise KeyError
    assert at_once(lambda: torch.get_num_threads())
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: evaluate(Net(), data()).num_samples).result(10) == 40


def test_rng_restored_after_lets_other_threads_run_and_restores() -> None:
    before = generator_states()
    with rng_restored_after():
        random.random()
        np.random.random()
        torch.rand(1)
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: evaluate(Net(), data()).num_samples).result(10) == 40
    assert generator_states() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("owner_forks", [False, True])
def test_a_forked_process_is_not_locked_by_a_thread_that_it_does_not_have(owner_forks: bool) -> None:
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive():
            inside.set()
            leave.wait(20)

    other = threading.Thread(target=hold)
    if not owner_forks:
        other.start()
        assert inside.wait(10)
    with exclusive() if owner_forks else contextlib.nullcontext():
        child = os.fork()
        if child == 0:
            try:
                with exclusive():
                    os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
    leave.set()
    if not owner_forks:
        other.join()
    assert os.waitstatus_to_exitcode(status) == 0


def test_measures_that_move_the_weights_and_products_share_a_model() -> None:
    net = models.mlp(3, 6, 2).double()
    before = [parameter.clone() for parameter in net.parameters()]
    operator = HessianOperator(net, nn.functional.cross_entropy, data())
    calls: list[Callable[[], Any]] = [
        lambda: exact_spectrum(HessianOperator(net, nn.functional.cross_entropy, data())).max_eigenvalue,
        lambda: average_case_loss(operator, 1.0, num_draws=20).loss,
        lambda: gibbs_error(net, data(), sigma=1.0, num_draws=20).value,
    ]
    expected = [call() for call in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        for _ in range(5):
            found = [future.result() for future in [pool.submit(call) for call in calls]]
            assert found == pytest.approx(expected, rel=1e-9)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_notes_of_reports_in_threads_are_their_own_and_warnings_stay_as_they_were() -> None:
    net = models.mlp(3, 6, 2).double()
    filters = list(warnings.filters)

    def notes() -> dict[Any, str]:
        return sharpness_report(net, nn.functional.cross_entropy, data(), num_matvecs=10, progress=False).notes

    expected = notes()
    assert expected
    assert all(found == expected for found in at_once(notes))
    assert warnings.filters == filters


def test_another_thread_waits_while_weights_are_moved() -> None:
    net = models.mlp(3, 6, 2).double()
    surface = LossSurface(HessianOperator(net, nn.functional.cross_entropy, data()))
    found: list[float] = []
    thread = threading.Thread(target=lambda: found.append(evaluate(net, data()).loss))
    expected = evaluate(net, data()).loss
    with surface._at(surface.start * 3):
        thread.start()
        thread.join(0.5)
        assert found == []
    thread.join(30)
    assert found == [expected]
