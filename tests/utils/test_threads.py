"""Guards of torch's number of threads: what is restored, what is small, and what a busy machine changes."""

import threading

import pytest
import torch
from torch import nn

from renyi_lab import models
from renyi_lab._utils import threads
from renyi_lab._utils.threads import AdaptiveThreads, one_thread, one_thread_if_small
from renyi_lab.operators import HessianOperator

THREADS = 3


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_number_is_one_inside_and_restored_after_errors_and_interrupts(error):
    def block() -> None:
        with one_thread():
            with one_thread():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1
            if error is not None:
                raise error

    if error is None:
        block()
    else:
        with pytest.raises(error):
            block()
    assert torch.get_num_threads() == THREADS


def test_overlapping_guards_of_two_python_threads_both_restore_the_number_from_outside():
    inside, leave = threading.Event(), threading.Event()
    seen = []

    def second() -> None:
        with one_thread():
            inside.set()
            leave.wait(10)
        seen.append(torch.get_num_threads())

    other = threading.Thread(target=second)
    with one_thread():
        other.start()
        assert inside.wait(10)
    assert torch.get_num_threads() == THREADS
    leave.set()
    other.join()
    assert seen == [THREADS]
    assert torch.get_num_threads() == THREADS


@pytest.mark.parametrize(
    ("model", "shape", "is_small"),
    [
        (models.mlp(40, 100, 100, 10), (128, 40), True),
        (models.mlp(40, 100, 100, 10), (4000, 40), False),
        (models.mlp(40, 1000, 1000, 10), (128, 40), False),
        (models.cnn1d(), (1024, 40), True),
        (models.resnet20(), (16, 3, 32, 32), False),
        (nn.Conv2d(3, 8, 3), (4, 3, 8, 8), True),
        (nn.Identity(), (0, 3, 8, 8), True),
    ],
)
def test_small_work_is_parameters_times_samples_times_positions(model, shape, is_small):
    with one_thread_if_small(model, torch.zeros(shape)):
        assert torch.get_num_threads() == (1 if is_small else THREADS)
    assert torch.get_num_threads() == THREADS


def test_hessian_products_agree_on_all_numbers_of_threads_and_restore_the_number():
    model = models.mlp(6, 40, 3).double()
    x, y = torch.randn(2000, 6, dtype=torch.float64), torch.arange(2000) % 3
    H = HessianOperator(model, nn.functional.cross_entropy, (x, y))
    v = torch.linspace(-1, 1, H.dim, dtype=torch.float64)
    first, *others = [H @ v for _ in range(5)]
    for product in others:
        torch.testing.assert_close(product, first, rtol=1e-9, atol=1e-12)
    assert torch.get_num_threads() == THREADS


class Machine:
    """A clock on which a run takes a given time on one thread and on all."""

    def __init__(self, on_one: float, on_all: float) -> None:
        self.now, self.on_one, self.on_all = 1000.0, on_one, on_all

    def perf_counter(self) -> float:
        return self.now

    def numbers_used(self, work: AdaptiveThreads, runs: int) -> list[int]:
        used = []
        for _ in range(runs):
            with work.run():
                used.append(torch.get_num_threads())
                self.now += self.on_one if used[-1] == 1 else self.on_all
        return used


@pytest.fixture
def machine(monkeypatch):
    machine = Machine(on_one=10.0, on_all=7.0)
    monkeypatch.setattr(threads, "time", machine)
    monkeypatch.setattr(AdaptiveThreads, "_busy_until", 0.0)
    return machine


def test_an_idle_machine_uses_all_threads_after_two_runs_on_one(machine):
    assert machine.numbers_used(AdaptiveThreads(), 40) == [1, 1] + 38 * [THREADS]


def test_small_work_that_is_slower_on_all_threads_keeps_them_within_the_tolerance(machine):
    machine.on_all = 14.0
    assert machine.numbers_used(AdaptiveThreads(), 40) == [1, 1] + 38 * [THREADS]


def test_a_busy_machine_costs_about_a_factor_of_two_at_most_and_is_noticed_when_it_is_idle_again(machine):
    work = AdaptiveThreads()
    machine.on_all = 300.0
    start = machine.now
    used = machine.numbers_used(work, 1000)
    assert used[:3] == [1, 1, THREADS]
    assert used.count(THREADS) == 4  # one in 300 runs
    assert machine.now - start < 2 * 1000 * machine.on_one
    machine.on_all = 7.0
    assert machine.numbers_used(work, 600)[-100:] == 100 * [THREADS]


def test_a_machine_that_becomes_busy_slows_one_run(machine):
    work = AdaptiveThreads()
    machine.numbers_used(work, 10)
    machine.on_one, machine.on_all = 20.0, 300.0
    assert machine.numbers_used(work, 50) == [THREADS] + 49 * [1]


def test_what_one_piece_of_work_finds_holds_for_all(machine):
    first, second = AdaptiveThreads(), AdaptiveThreads()
    machine.numbers_used(second, 5)
    machine.on_all = 300.0
    machine.numbers_used(first, 3)
    assert machine.numbers_used(second, 50) == 50 * [1]


def test_a_run_that_fails_restores_the_number_and_is_not_counted(machine):
    work = AdaptiveThreads()

    def failing() -> None:
        with work.run():
            raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            failing()
    assert torch.get_num_threads() == THREADS
    assert machine.numbers_used(work, 3) == [1, 1, THREADS]
