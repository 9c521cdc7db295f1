"""An interrupt at any moment leaves everything as it was, or a training at the end of a step."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from injected import chosen_events, global_state, interrupted_at, model_state
from study_process import SECONDS, started, wait_until
from torch import nn

from renyi_lab._utils.interrupts import atomic, interruptible, restoring, uninterrupted, whole_contexts
from renyi_lab._utils.whole_file import whole_file
from renyi_lab.bounds import certify
from renyi_lab.models import mlp
from renyi_lab.operators import HessianOperator
from renyi_lab.optim import RSAM
from renyi_lab.perturbation import discrepancy_curve
from renyi_lab.spectrum import Spectrum, estimate_spectrum, exact_spectrum
from renyi_lab.study import run_study
from renyi_lab.training import evaluate, train

X = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = (X[:, 0] > 0).long()
BATCHES = [(X[:4], Y[:4]), (X[4:], Y[4:])]
LOSS = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def interrupts_raise() -> Any:
    """SIGINT, which jobs of a shell in the background ignore, raises KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def model() -> nn.Module:
    """With batch norm, dropout, a frozen weight, a gradient, a hook, and a layer in another mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 2), nn.Linear(2, 2)
    ).double()
    model[1].eval()
    model[5].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[0].weight.register_hook(lambda gradient: None)
    return model


def check_restored(call: Callable[[], Any], state: Callable[[], Any], size: int, seed: int = 0) -> None:
    """Interrupt the call at ``size`` places, drawn at random; ``state()`` stays the same."""
    call()  # what is made once, such as caches, is made
    before, interrupted = state(), 0
    for number in chosen_events(call, size, seed):
        place = interrupted_at(number, call)
        interrupted += bool(place)
        after = state()
        assert after == before, (
            f"an interrupt at {place} changes {[name for name in after if after[name] != before[name]]}"
        )
    assert interrupted >= size / 2


def spectrum(model: nn.Module) -> Any:
    return estimate_spectrum(HessianOperator(model, LOSS, BATCHES), num_matvecs=6, progress=False)


def exact(model: nn.Module) -> Any:
    return exact_spectrum(HessianOperator(model, LOSS, BATCHES))


def discrepancy(model: nn.Module) -> Any:
    return discrepancy_curve(HessianOperator(model, LOSS, BATCHES), "0", torch.eye(3, dtype=torch.float64), [0.1])


@pytest.mark.slow
@pytest.mark.parametrize(("call", "size"), [(spectrum, 40), (exact, 20), (discrepancy, 20), (evaluate, 20)])
def test_measuring_a_model_leaves_no_trace(call: Callable[..., Any], size: int, model: nn.Module) -> None:
    work = functools.partial(call, model, (X, Y)) if call is evaluate else functools.partial(call, model)
    check_restored(work, lambda: {**global_state(), **model_state(model)}, size)


@pytest.mark.slow
def test_an_interrupted_call_can_be_repeated(model: nn.Module) -> None:
    operator = HessianOperator(model, LOSS, BATCHES)
    call = functools.partial(estimate_spectrum, operator, num_matvecs=6, progress=False)
    undisturbed = spectrum(model)
    for number in chosen_events(call, 10, seed=1):
        interrupted_at(number, call)
        again = call()
        torch.testing.assert_close(again.nodes, undisturbed.nodes, rtol=1e-8, atol=1e-10)


class Recorded(torch.optim.SGD):
    """SGD that calls ``ended`` at the end of each step."""

    ended: Callable[[], None] = staticmethod(lambda: None)

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        self.ended()
        return loss


@pytest.mark.slow
@pytest.mark.parametrize("sharpness_aware", [False, True])
def test_a_training_stops_between_two_steps(
    sharpness_aware: bool, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, latest = [p.detach().clone() for p in model.parameters()], list[Any]()

    def note() -> None:
        latest[:] = [p.tolist() for p in model.parameters()]

    def factory(parameters: Any) -> Any:
        settings = {"lr": 0.1, "momentum": 0.9}
        return RSAM(parameters, Recorded, rho=0.1, **settings) if sharpness_aware else Recorded(parameters, **settings)

    def training() -> None:
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), start, strict=True):
                parameter.copy_(value)
        note()
        train(model, (X, Y), epochs=2, batch_size=4, optimizer=factory, test_set=(X, Y), progress=False)

    def state() -> dict[str, Any]:
        at_a_step = [p.tolist() for p in model.parameters()] == latest
        return {**global_state(), **model_state(model, weights=False), "weights at the end of a step": at_a_step}

    monkeypatch.setattr(Recorded, "ended", staticmethod(note))
    check_restored(training, state, 50)


def test_an_interrupted_step_ends_at_the_weights_where_it_began(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.eval()
    optimizer, latest = RSAM(model.parameters(), Recorded, rho=0.1, lr=0.1, momentum=0.9), list[Any]()

    def note() -> None:
        latest[:] = [p.tolist() for p in model.parameters()]

    def closure() -> Any:
        optimizer.zero_grad()
        loss = LOSS(model(X), Y)
        loss.backward()
        return loss

    monkeypatch.setattr(Recorded, "ended", staticmethod(note))
    check_restored(
        functools.partial(optimizer.step, closure),
        lambda: {"weights": [p.tolist() for p in model.parameters()] == latest, "perturbed": optimizer.in_second_pass},
        40,
    )


@pytest.mark.slow
def test_certify_leaves_no_trace() -> None:
    x, y = torch.cat([X.float()] * 4), torch.cat([Y] * 4)
    settings: dict[str, Any] = {"epochs": 1, "num_draws": 2, "num_directions": 1, "progress": False}
    check_restored(lambda: certify(lambda: mlp(3, 2, 2), (x, y), **settings), global_state, 3)


def norm(model: nn.Module, loss_fn: Any, data: Any, initial_parameters: Any) -> dict[str, float]:
    return {"norm": float(sum(p.detach().square().sum() for p in model.parameters()))}


@pytest.mark.slow
def test_a_study_keeps_whole_lines(tmp_path: Path) -> None:
    data, path = ((X.float(), Y), (X.float(), Y)), tmp_path / "records"
    grid = {"lr": [0.1, 0.2], "width": 2, "epochs": 1}
    lines = [b""]

    def call() -> None:
        run_study(grid, data=data, measure=norm, min_accuracy=0, path=path, progress=False)

    def state() -> dict[str, Any]:
        lines[0] = path.read_bytes() if path.exists() else b""
        path.unlink(missing_ok=True)
        return {**global_state(), "whole": not lines[0] or lines[0].endswith(b"}\n"), "files": list(tmp_path.iterdir())}

    check_restored(call, state, 25)


def work_for_ever(folder: str, begun: str) -> None:
    """Train, measure and certify again and again; the file ``begun`` says that the imports are over."""
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    os.chdir(folder)
    Path(begun).touch()
    data = torch.cat([X.float()] * 4), torch.cat([Y] * 4)
    while True:
        network = mlp(3, 2, 2)
        train(network, data, epochs=3, progress=False)
        spectrum(network.double())
        certify(lambda: mlp(3, 2, 2), data, epochs=1, num_draws=2, num_directions=1, progress=False)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_ends_at_once_and_leaves_nothing(signum: int, tmp_path: Path) -> None:
    begun, folder, moment = tmp_path / "begun", tmp_path / "folder", random.Random(4)
    folder.mkdir()
    for _ in range(2):
        with started(work_for_ever, str(folder), str(begun)) as process:
            wait_until(begun.exists, "the first training")
            begun.unlink()
            time.sleep(moment.uniform(0, 0.5))
            assert psutil.Process(process.pid).children() == []
            os.kill(process.pid, signum)
            process.join(SECONDS)
            assert process.exitcode == -signum
        assert list(folder.iterdir()) == []


# A file that is dropped between its opening and the beginning of the block is closed by Python, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "spectrum.npz"
    one, other = (Spectrum.from_eigenvalues(torch.tensor([1.0, top])) for top in (2.0, 3.0))
    one.save(path)

    def state() -> dict[str, Any]:
        saved = Spectrum.load(path)
        return {
            "files": list(tmp_path.iterdir()),
            "whole": saved in (one, other) or float(saved.nodes[-1]) in (2.0, 3.0),
        }

    check_restored(lambda: other.save(path), state, 40)


def test_a_full_disk_leaves_the_old_file_and_the_error_names_the_path(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with whole_file(path) as partial:
            partial.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial))

    with pytest.raises(OSError, match=r"No space left on device.*file'"):
        write()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_while_contexts_are_entered_and_left() -> None:
    events: list[str] = []

    @restoring
    def context() -> Any:
        interrupt()
        events.append("set up")
        try:
            yield
        finally:
            interrupt()
            events.append("restored")

    with pytest.raises(KeyboardInterrupt), context():
        time.sleep(60)  # the interrupt comes here, and ends the wait
    assert events == ["set up", "restored"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_waits_for_the_end_of_a_function_but_not_of_what_may_be_interrupted() -> None:
    events: list[str] = []

    @interruptible
    def closure() -> None:
        interrupt()
        events.append("not reached")

    @uninterrupted
    def step(function: Callable[[], None]) -> None:
        function()
        events.append("done")

    with pytest.raises(KeyboardInterrupt):
        step(interrupt)
    assert events == ["done"]
    with pytest.raises(KeyboardInterrupt):
        step(closure)
    assert events == ["done"]


def test_an_interrupt_that_came_while_leaving_does_not_come_twice() -> None:
    @whole_contexts()
    @atomic
    def work() -> None:
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        work()
    time.sleep(0.05)


def test_code_that_hangs_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("renyi_lab._utils.interrupts._LONGEST_WAIT", 0.1)

    @uninterrupted
    def hang() -> None:
        interrupt()
        while True:
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        hang()


def test_other_threads_and_ignored_interrupts_are_left_alone() -> None:
    seen: list[Any] = []

    def work() -> None:
        with whole_contexts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work()
    assert seen == [signal.default_int_handler, signal.SIG_IGN]


def test_a_handler_that_is_set_inside_stays() -> None:
    with contextlib.suppress(KeyboardInterrupt), whole_contexts():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
