"""Numerical checks of the GPU benchmark: each compares with float64 on the CPU and returns relative errors.

A check returns a dictionary from what was compared to ``(error, limit)``. It passes where every error is at most its
limit; NaN never passes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from _gpu_networks import FULL, GPT, Network, image_loss, token_loss
from torch import Tensor, nn

import renyi_lab as rl
from renyi_lab import optim, perturbation

Errors = dict[str, tuple[float, float]]
# Relative, by dtype. Heuristic: a hundred times what was seen where all is right.
PRODUCT = {torch.float32: 1e-4, torch.float64: 1e-10}
SUMMARY = {torch.float32: 2e-2, torch.float64: 1e-6}  # of entropies and measures after dozens of products
DTYPES = (torch.float32, torch.float64)
CPU = torch.device("cpu")


def relative(found: Tensor, truth: Tensor) -> float:
    """``‖found − truth‖ / ‖truth‖`` in float64 on the CPU."""
    found, truth = found.detach().cpu().double(), truth.detach().cpu().double()
    return float((found - truth).norm() / truth.norm().clamp_min(1e-300))


def _first(samples: int, network: Network) -> Network:
    """The same network on a few samples."""
    return Network(network.make, lambda: tuple(t[:samples] for t in network.data()), network.loss, "")


_IDS = torch.randint(64, (8, 33), generator=torch.Generator().manual_seed(0))
SMALL = {
    "MLP": _first(64, FULL["MLP 40-100-100-10"]),
    "CNN1d": _first(64, FULL["CNN1d"]),
    "ResNet-20": _first(8, FULL["ResNet-20"]),
    "GPT": Network(lambda: GPT(64, 32, 32, 2, 2), lambda: (_IDS[:, :-1], _IDS[:, 1:]), token_loss, ""),
}


def _vector(dim: int, columns: int = 0) -> Tensor:
    shape = (dim, columns) if columns else (dim,)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def products(name: str, device: torch.device) -> Errors:
    """Hessian, Gauss–Newton matrix and gradient, one vector and several, in both precisions."""
    network, errors = SMALL[name], {}
    for make, label in ((rl.HessianOperator, "Hessian"), (rl.GGNOperator, "GGN")):
        model, data = network.on(CPU, torch.float64)
        exact = make(model, network.loss, data)
        V = _vector(exact.dim, 4)
        truth = exact @ V
        for dtype in DTYPES:
            model, data = network.on(device, dtype)
            found = make(model, network.loss, data)
            W = V.to(device, dtype)
            limit, short = PRODUCT[dtype], str(dtype).removeprefix("torch.")
            errors[f"{label}, {short}"] = relative(found @ W[:, 0], truth[:, 0]), limit
            errors[f"{label}, {short}, several"] = relative(found @ W, truth), limit
            if make is rl.HessianOperator:
                errors[f"gradient, {short}"] = relative(found.gradient(), exact.gradient()), limit
    return errors


def blocks(device: torch.device) -> Errors:
    """The block of every parameter tensor of a small CNN."""
    network, errors = SMALL["CNN1d"], {}
    model, data = network.on(CPU, torch.float64)
    exact = rl.HessianOperator(model, network.loss, data).blocks()
    for dtype in DTYPES:
        model, data = network.on(device, dtype)
        found = rl.HessianOperator(model, network.loss, data).blocks()
        worst = max(
            relative(found[block] @ _vector(H.dim).to(device, dtype), H @ _vector(H.dim)) for block, H in exact.items()
        )
        errors[f"worst of {len(exact)}, {dtype}".replace("torch.", "")] = worst, PRODUCT[dtype]
    return errors


def estimate(device: torch.device) -> Errors:
    """The entropy and the largest eigenvalue from 60 products: the probes are the same on every device."""
    network, errors = SMALL["MLP"], {}

    def numbers(device: torch.device, dtype: torch.dtype) -> Tensor:
        model, data = network.on(device, dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spectrum = rl.estimate_spectrum(
                rl.HessianOperator(model, network.loss, data), num_matvecs=60, progress=False
            )
            return torch.tensor(
                [float(spectrum.renyi_entropy(1.5)), float(spectrum.trace), float(spectrum.nodes.max())]
            )

    truth = numbers(CPU, torch.float64)
    for dtype in DTYPES:
        worst = float(((numbers(device, dtype) - truth) / truth).abs().max())
        errors[str(dtype).removeprefix("torch.")] = worst, SUMMARY[dtype]
    return errors


def report(device: torch.device) -> Errors:
    """Every measure of the sharpness report in float64: the worst difference, relative to the measure."""

    def numbers(device: torch.device) -> dict[object, float]:
        torch.manual_seed(0)
        model = rl.models.mlp(40, 16, 10).double().to(device)
        x, y = (t.to(device) for t in SMALL["MLP"].data())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = rl.sharpness_report(model, image_loss, (x.double(), y), num_matvecs=40, progress=False)
        return {row: value.value for row, value in found.estimates.items()}

    truth, found = numbers(CPU), numbers(device)
    differences = {
        row: abs(found[row] - value) / max(abs(value), 1e-12) for row, value in truth.items() if value == value
    }
    worst = max(differences, key=lambda row: differences[row])
    return {f"worst of {len(differences)} numbers ({worst})": (differences[worst], SUMMARY[torch.float64])}


def perturbations(device: torch.device) -> Errors:
    """Worst and average loss in a ball."""

    def numbers(device: torch.device) -> Tensor:
        model, data = SMALL["MLP"].on(device, torch.float64)
        H = rl.HessianOperator(model, image_loss, data)
        worst = perturbation.worst_case_loss(H, 0.1, num_steps=5)
        average = perturbation.average_case_loss(H, 0.1, num_draws=5)
        return torch.tensor([worst.loss, average.loss, H.total_loss()], dtype=torch.float64)

    return {"worst, average and centre": (relative(numbers(device), numbers(CPU)), 1e-8)}


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], optim.SharpnessAware]] = {
    "SAM": lambda params: optim.SAM(params, lr=0.05, rho=0.05),
    "ASAM": lambda params: optim.ASAM(params, lr=0.05, rho=0.5),
    "RSAM, paper": lambda params: optim.RSAM(params, lr=0.05, rho=0.1, alpha=1.5),
    "RSAM, divergence": lambda params: optim.RSAM(params, lr=0.05, rho=0.1, alpha=0.5, form="divergence"),
    "RSAM, exact": lambda params: optim.RSAM(params, lr=0.05, rho=0.1, alpha=2.0, form="exact"),
}


def _weights_after(name: str, device: torch.device, dtype: torch.dtype, steps: int = 3) -> Tensor:
    model, (x, y) = SMALL["MLP"].on(device, dtype)
    optimizer = OPTIMIZERS[name](list(model.parameters()))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = image_loss(model(x), y)
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def steps(device: torch.device) -> Errors:
    """Three steps of each sharpness-aware optimizer."""
    errors = {}
    for name in OPTIMIZERS:
        truth = _weights_after(name, CPU, torch.float64)
        for dtype in DTYPES:
            label = f"{name}, {dtype}".replace("torch.", "")
            errors[label] = relative(_weights_after(name, device, dtype), truth), PRODUCT[dtype]
    return errors


def mixed_precision(device: torch.device) -> Errors:
    """RSAM in float16 with GradScaler and in bfloat16, three steps: the weights beside those of float32.

    The limits are the rounding of the types, relative to how far the steps went.
    """
    network, errors = SMALL["MLP"], {}
    start = torch.nn.utils.parameters_to_vector(network.on(CPU)[0].parameters()).detach()
    truth = _weights_after("RSAM, divergence", CPU, torch.float64) - start
    for dtype, limit in ((torch.float16, 0.1), (torch.bfloat16, 0.1)):
        model, (x, y) = network.on(device)
        optimizer = OPTIMIZERS["RSAM, divergence"](list(model.parameters()))
        scaler = torch.amp.GradScaler(
            device.type, enabled=dtype == torch.float16 and device.type == "cuda", init_scale=1024.0
        )

        def closure(model=model, x=x, y=y, optimizer=optimizer, scaler=scaler, dtype=dtype) -> Tensor:
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype):
                loss = image_loss(model(x), y)
            scaler.scale(loss).backward()
            return loss

        for _ in range(3):
            if dtype == torch.float16:
                optim.amp_step(optimizer, scaler, closure)
            else:
                optimizer.step(closure)
        moved = torch.nn.utils.parameters_to_vector(model.parameters()).detach().cpu().double() - start
        errors[str(dtype).removeprefix("torch.")] = relative(moved, truth), limit
    return errors


@contextmanager
def _coarse_arithmetic(device: torch.device) -> Iterator[None]:
    """Autocast and TF32 on."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        with torch.autocast(device.type, torch.bfloat16):
            yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def precision(device: torch.device) -> Errors:
    """Products in float32 while autocast and TF32 are on: as precise as ever, and the settings stay."""
    errors = {}
    for name in ("MLP", "ResNet-20"):
        network = SMALL[name]
        model, data = network.on(CPU, torch.float64)
        exact = rl.HessianOperator(model, network.loss, data)
        truth = exact @ _vector(exact.dim)
        with _coarse_arithmetic(device):
            model, data = network.on(device)
            H = rl.HessianOperator(model, network.loss, data)
            errors[f"product, {name}"] = relative(H @ _vector(H.dim).to(device).float(), truth), PRODUCT[torch.float32]
            errors[f"gradient, {name}"] = relative(H.gradient(), exact.gradient()), PRODUCT[torch.float32]
            kept = torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
            errors[f"settings kept, {name}"] = float(not kept), 0.0
    return errors


def changed_weights(device: torch.device) -> Errors:
    """Products after changes that autograd does not see: each must be that of the model as it is now."""
    network = SMALL["ResNet-20"]
    model, data = network.on(device, torch.float64)
    H = rl.HessianOperator(model, network.loss, data)
    v = _vector(H.dim).to(device)
    errors = {}

    def compare(change: str) -> None:
        twin = copy.deepcopy(model).cpu()
        truth = rl.HessianOperator(twin, network.loss, tuple(t.cpu() for t in data)) @ v.cpu()
        errors[change] = relative(H @ v, truth), PRODUCT[torch.float64]

    compare("nothing")
    first = next(model.parameters())
    with torch.no_grad():
        first.mul_(1.1)
    compare("in place")
    first.data.mul_(1.1)
    compare("through .data")
    flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    torch.nn.utils.vector_to_parameters(1.01 * flat, model.parameters())
    compare("vector_to_parameters")
    next(b for b in model.buffers() if b.is_floating_point()).data.add_(0.1)
    compare("a buffer through .data")
    return errors


def moved_weights(device: torch.device) -> Errors:
    """ResNet-20 in float64: products and gradients of weights that are views of one vector.

    Each is compared with the CPU, and the product with a difference of gradients on the device.
    """
    network = SMALL["ResNet-20"]
    model, data = network.on(CPU, torch.float64)
    exact = rl.HessianOperator(model, network.loss, data)
    v = _vector(exact.dim)
    v /= v.norm()
    truth, slope = exact @ v, exact.gradient()
    model, data = network.on(device, torch.float64)
    H, params, w = rl.HessianOperator(model, network.loss, data), list(model.parameters()), v.to(device)
    flat = torch.nn.utils.parameters_to_vector(params).detach().clone()
    gradients = []
    for sign in (1.0, -1.0):
        torch.nn.utils.vector_to_parameters(flat + sign * 1e-5 * w, params)
        gradients.append(H.gradient())
    torch.nn.utils.vector_to_parameters(flat, params)
    return {
        "product": (relative(H @ w, truth), PRODUCT[torch.float64]),
        "gradient": (relative(H.gradient(), slope), PRODUCT[torch.float64]),
        "difference of gradients": (relative((gradients[0] - gradients[1]) / 2e-5, truth), 1e-6),
    }


def repeated(device: torch.device) -> Errors:
    """Two trainings with one seed, and two products, under `torch.use_deterministic_algorithms`: bit for bit equal."""
    x, y = SMALL["CNN1d"].data()
    before = torch.are_deterministic_algorithms_enabled()

    def weights() -> Tensor:
        model = rl.models.cnn1d().to(device)
        rl.train(model, (x, y), epochs=2, batch_size=16, device=device, progress=False)
        return torch.nn.utils.parameters_to_vector(model.parameters()).detach()

    try:
        torch.use_deterministic_algorithms(True)
        model, data = SMALL["ResNet-20"].on(device)
        H = rl.HessianOperator(model, image_loss, data)
        V = _vector(H.dim, 4).to(device).float()
        found = {
            "trainings differ": weights().equal(weights()),
            "products differ": (H @ V[:, 0]).equal(H @ V[:, 0]),
            "products with several vectors differ": (H @ V).equal(H @ V),
        }
    finally:
        torch.use_deterministic_algorithms(before)
    return {what: (float(not same), 0.0) for what, same in found.items()}


CHECKS: dict[str, Callable[[torch.device], Errors]] = {
    **{f"products, {name}": lambda device, name=name: products(name, device) for name in SMALL},
    "ResNet-20, weights through vector_to_parameters": moved_weights,
    "changed weights and buffers": changed_weights,
    "autocast and TF32 on": precision,
    "blocks, CNN1d": blocks,
    "estimate, MLP": estimate,
    "sharpness report, MLP": report,
    "perturbations, MLP": perturbations,
    "sharpness-aware optimizers, MLP": steps,
    "mixed precision, MLP": mixed_precision,
    "twice the same, deterministic algorithms": repeated,
}
