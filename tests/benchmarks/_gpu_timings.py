"""Timings of the GPU benchmark: a case times one thing on one network and returns a record."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from _gpu_networks import FULL, QUICK, Network, TokenLoss
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import renyi_lab as rl
from renyi_lab import optim

Record = dict[str, Any]
_WIDTH = 8  # vectors at once
_gradients: dict[str, float] = {}  # milliseconds of one gradient, measured once a network


class Clock:
    """Milliseconds of a call, and the memory that it takes, on one device.

    Args:
        device: The device.
        quick: Time a single call.
    """

    def __init__(self, device: torch.device, quick: bool) -> None:
        self.device, self.quick = device, quick

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def milliseconds(self, call: Callable[[], object], seconds: float = 0.5) -> float:
        """The median over single calls within ``seconds``, 3 to 50 of them, after two to warm up."""
        for _ in range(1 if self.quick else 2):
            call()
        times: list[float] = []
        self.wait()
        end = time.perf_counter() + (0 if self.quick else seconds)
        while len(times) < (1 if self.quick else 3) or (time.perf_counter() < end and len(times) < 50):
            began = time.perf_counter()
            call()
            self.wait()
            times.append(1e3 * (time.perf_counter() - began))
        return statistics.median(times)

    def memory(self) -> float | None:
        """MB allocated now."""
        return torch.cuda.memory_allocated(self.device) / 1e6 if self.device.type == "cuda" else None

    def peak(self, above: float | None) -> float | None:
        """MB at the peak since `start`, above what was allocated then."""
        if above is None:
            return None
        return torch.cuda.max_memory_allocated(self.device) / 1e6 - above

    def start(self) -> float | None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        return self.memory()


def _network(name: str, quick: bool) -> Network:
    return (QUICK if quick else FULL)[name]


def _vector(model: nn.Module, device: torch.device, *columns: int) -> Tensor:
    size = sum(p.numel() for p in model.parameters())
    return torch.randn(size, *columns, device=device)


def gradient(name: str, clock: Clock) -> Record:
    """One gradient in plain torch, in full float32.

    The unit of products has attention of the kind that can be differentiated twice; for language models and vision
    transformers torch's default is faster, and is timed too.
    """
    network = _network(name, clock.quick)
    model, (x, y) = network.on(clock.device)
    params, above = list(model.parameters()), clock.start()
    default = clock.milliseconds(lambda: torch.autograd.grad(network.loss(model(x), y), params))
    _gradients[name] = _gradient_milliseconds(network, model, (x, y), clock)
    size = sum(p.numel() for p in params)
    times = {"milliseconds": _gradients[name], "default_milliseconds": default}
    return {"data": network.batch, "parameters": size, **times, "peak_mb": clock.peak(above)}


def _gradient_milliseconds(network: Network, model: nn.Module, data: tuple[Tensor, Tensor], clock: Clock) -> float:
    params = list(model.parameters())
    return _twice_differentiable(clock, lambda: torch.autograd.grad(network.loss(model(data[0]), data[1]), params))


def _in_gradients(name: str, clock: Clock, milliseconds: float) -> Record:
    if name not in _gradients:  # the process is a new one
        gradient(name, clock)
    return {"milliseconds": milliseconds, "gradients": milliseconds / _gradients[name]}


def product(name: str, clock: Clock) -> Record:
    """One Hessian-vector product by itself, and one of many inside an algorithm; what checking the graph costs."""
    network = _network(name, clock.quick)
    model, data = network.on(clock.device)
    above = clock.start()
    H, v = rl.HessianOperator(model, network.loss, data), _vector(model, clock.device)
    began = time.perf_counter()
    H @ v
    clock.wait()
    first = time.perf_counter() - began
    single = clock.milliseconds(lambda: H @ v)
    peak, kept = clock.peak(above), H._fingerprint
    with H.unchanged():
        inside = clock.milliseconds(lambda: H @ v)
    _gradients[name] = _gradient_milliseconds(network, model, data, clock)  # anew, for the same moment
    record = _in_gradients(name, clock, single)
    check = None if kept is None else clock.milliseconds(lambda: kept.matches(H._roots), 0.2)
    more = {
        "inside_milliseconds": inside,
        "inside_gradients": inside / _gradients[name],
        "check_milliseconds": check,
        "first_product_seconds": first,
    }
    return {**record, **more, "peak_mb": peak, "kept": H.num_batches_kept}


def several(name: str, clock: Clock) -> Record:
    """Products with eight vectors at once, a vector."""
    network = _network(name, clock.quick)
    model, data = network.on(clock.device)
    above = clock.start()
    H, V = rl.HessianOperator(model, network.loss, data), _vector(model, clock.device, _WIDTH)
    H @ V
    record = _in_gradients(name, clock, clock.milliseconds(lambda: H @ V) / _WIDTH)
    at_once = None if H._choice is None else H._choice._width
    return {**record, "peak_mb": clock.peak(above), "at_once": at_once}


def synchronisations(name: str, clock: Clock) -> Record:
    """Waits of the host for the device: in a product, in five products of an algorithm, in five Lanczos steps."""
    network = _network(name, clock.quick)
    model, data = network.on(clock.device)
    H, v = rl.HessianOperator(model, network.loss, data), _vector(model, clock.device)
    for _ in range(6):  # the first few are compared with each other
        H @ v
    one = _waits(clock, lambda: H @ v)
    steps = rl.lanczos_steps(H, v, num_steps=12)
    with H.unchanged():
        H @ v
        five = _waits(clock, lambda: [H @ v for _ in range(5)])
        for _ in range(6):
            next(steps)
        lanczos = _waits(clock, lambda: [next(steps) for _ in range(5)])
    return {"in_a_product": one, "in_five_products_of_an_algorithm": five, "in_five_lanczos_steps": lanczos}


def _waits(clock: Clock, call: Callable[[], object]) -> int | None:
    if clock.device.type != "cuda":
        call()
        return None
    clock.wait()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


def _twice_differentiable(clock: Clock, call: Callable[[], object]) -> float:
    """Milliseconds of a call with attention that has a second derivative, which peers leave to their users."""
    with sdpa_kernel(SDPBackend.MATH):
        return clock.milliseconds(call)


def eigenthings(name: str, clock: Clock) -> Record:
    from hessian_eigenthings import HessianOperator, supervised_loss

    network = _network(name, clock.quick)
    model, data = network.on(clock.device)
    above, v = clock.start(), _vector(model, clock.device)
    peer = HessianOperator(model, [data], supervised_loss(network.loss))
    return {
        **_in_gradients(name, clock, _twice_differentiable(clock, lambda: peer.matvec(v))),
        "peak_mb": clock.peak(above),
    }


def curvlinops(name: str, clock: Clock) -> Record:
    from curvlinops import HessianLinearOperator

    network = _network(name, clock.quick)
    model, data = network.on(clock.device)
    above, v = clock.start(), _vector(model, clock.device)
    loss = network.loss if isinstance(network.loss, nn.Module) else TokenLoss()
    peer = HessianLinearOperator(model, loss, list(model.parameters()), [data], check_deterministic=False)
    taken = _twice_differentiable(clock, lambda: peer @ v)
    return {**_in_gradients(name, clock, taken), "peak_mb": clock.peak(above)}


def pyhessian(name: str, clock: Clock) -> Record:
    from pyhessian import hessian

    network = _network(name, clock.quick)
    model, data = network.on(clock.device)
    above, params = clock.start(), list(model.parameters())
    peer = hessian(model, network.loss, dataloader=[data], cuda=clock.device.type == "cuda")
    parts = [torch.randn_like(p) for p in params]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
        taken = _twice_differentiable(clock, lambda: peer.dataloader_hv_product(parts))
    return {**_in_gradients(name, clock, taken), "peak_mb": clock.peak(above)}


def estimate(name: str, clock: Clock) -> Record:
    """An entropy with its standard error from 60 products of the whole network."""
    network = _network(name, clock.quick)
    model, data = network.on(clock.device)
    above = clock.start()
    H = rl.HessianOperator(model, network.loss, data)
    return {"of": "whole", **_entropy(H, 60, clock), "peak_mb": clock.peak(above)}


def layer(name: str, clock: Clock) -> Record:
    """The same for every block of the first transformer layer."""
    network = _network(name, clock.quick)
    model, data = network.on(clock.device)
    above = clock.start()
    H = rl.HessianOperator(model, network.loss, data)
    names = [block for block in H.parameter_names if block.startswith("blocks.0.")]
    records = [_entropy(H.restricted(block), 60, clock) for block in names]
    longest = max(records, key=lambda record: record["seconds"])
    return {
        "blocks": len(names),
        "seconds": sum(record["seconds"] for record in records),
        "slowest": names[records.index(longest)],
        "slowest_seconds": longest["seconds"],
        "peak_mb": clock.peak(above),
    }


def _entropy(H: rl.HessianOperator, products: int, clock: Clock) -> Record:
    clock.wait()
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = rl.estimate_spectrum(H, num_matvecs=products, progress=False).renyi_entropy(1.5)
    clock.wait()
    seconds = time.perf_counter() - began
    return {"products": products, "entropy": found.value, "error": found.standard_error, "seconds": seconds}


def step(name: str, clock: Clock) -> Record:
    """A step of RSAM over one of SGD; two gradients make two."""
    network = _network(name, clock.quick)
    times = {}
    for kind in ("sgd", "rsam"):
        model, (x, y) = network.on(clock.device)
        model.train()
        params = list(model.parameters())
        made: Any = torch.optim.SGD(params, lr=1e-3, momentum=0.9)
        if kind == "rsam":
            made = optim.RSAM(params, lr=1e-3, rho=1e-3, momentum=0.9)

        def closure(model=model, x=x, y=y, made=made) -> Tensor:
            made.zero_grad()
            loss = network.loss(model(x), y)
            loss.backward()
            return loss

        times[kind] = clock.milliseconds(lambda made=made, closure=closure: made.step(closure))
    return {"sgd_milliseconds": times["sgd"], "rsam_milliseconds": times["rsam"], "ratio": times["rsam"] / times["sgd"]}


CONTENDERS: dict[str, Callable[[str, Clock], Record]] = {
    "renyi_lab": product,
    "renyi_lab, 8 at once": several,
    "hessian-eigenthings": eigenthings,
    "curvlinops": curvlinops,
    "PyHessian": pyhessian,
}
