"""The networks on which products are timed, and the implementations that are compared."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import renyi_lab as rl

Product = Callable[[Tensor], Tensor]
LOSS = nn.CrossEntropyLoss()


@dataclass(frozen=True)
class Case:
    """A network at its initial weights, and data."""

    kind: str
    samples: int
    sizes: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return " ".join([self.kind, "-".join(map(str, self.sizes))]).strip()

    def model(self) -> nn.Module:
        made = {"mlp": lambda: rl.models.mlp(*self.sizes), "cnn1d": rl.models.cnn1d, "resnet20": rl.models.resnet20}
        return made[self.kind]().eval()

    def data(self) -> tuple[Tensor, Tensor]:
        if self.kind != "resnet20":
            train_set, _ = rl.datasets.mnist1d(num_samples=5 * self.samples // 4)  # four fifths are for training
            return train_set.tensors
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.samples, 3, 32, 32, generator=generator)
        return x, torch.randint(10, (self.samples,), generator=generator)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def parts(vector: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    split = vector.split([p.numel() for p in params])
    return [part.reshape(p.shape) for part, p in zip(split, params, strict=True)]


# Every contender gets its own model, since PyHessian leaves its graph in .grad.


def gradient(case: Case) -> Product:
    model, (x, y) = case.model(), case.data()
    params = list(model.parameters())
    return lambda _: flat(torch.autograd.grad(LOSS(model(x), y), params))


def renyi_lab(case: Case) -> Product:
    return rl.HessianOperator(case.model(), LOSS, case.data()).__matmul__


def curvlinops(case: Case) -> Product:
    from curvlinops import HessianLinearOperator

    model = case.model()
    params = list(model.parameters())
    return HessianLinearOperator(model, LOSS, params, [case.data()], check_deterministic=False).__matmul__


def hessian_eigenthings(case: Case) -> Product:
    from hessian_eigenthings import HessianOperator, supervised_loss

    return HessianOperator(case.model(), [case.data()], supervised_loss(LOSS)).matvec


def pyhessian_loader(case: Case) -> Product:
    from pyhessian import hessian

    peer = hessian(case.model(), LOSS, dataloader=[case.data()], cuda=False)
    params = list(peer.model.parameters())
    return lambda vector: flat(peer.dataloader_hv_product(parts(vector, params))[1])


def pyhessian_batch(case: Case) -> Product:
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    peer = hessian(case.model(), LOSS, data=case.data(), cuda=False)
    return lambda vector: flat(hessian_vector_product(peer.gradsH, peer.params, parts(vector, peer.params)))


@dataclass(frozen=True)
class Contender:
    """An implementation of a Hessian-vector product."""

    distribution: str
    make: Callable[[Case], Product]
    note: str
    whole_data: bool = True  # whether it takes more than one batch

    @property
    def version(self) -> str:
        return rl.__version__ if self.make is renyi_lab else importlib.metadata.version(self.distribution)


CONTENDERS = {
    "renyi_lab": Contender("renyi-lab", renyi_lab, "graph kept"),
    "hessian-eigenthings": Contender("hessian-eigenthings", hessian_eigenthings, "double backward, recomputed"),
    "curvlinops": Contender("curvlinops-for-pytorch", curvlinops, "jvp of jacrev"),
    "PyHessian, data loader": Contender("pyhessian", pyhessian_loader, "double backward, recomputed; changes .grad"),
    "PyHessian, one batch": Contender(
        "pyhessian", pyhessian_batch, "graph kept, for one batch only; occupies .grad", whole_data=False
    ),
}
