"""The reference that operators are compared with: a dense Hessian by two backward passes, row by row."""

import torch

N, D, CLASSES = 12, 4, 3


def data(dtype=torch.float64):
    """A small classification problem: ``N`` inputs of ``D`` features, and their classes."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, D, dtype=dtype, generator=generator), torch.arange(N) % CLASSES


def double_backward(loss, parameters):
    """The Hessian of ``loss()`` in ``parameters``, entry by entry of the gradient; nothing is kept between rows."""
    parameters = list(parameters)
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(), parameters, create_graph=True, materialize_grads=True)
        rows = []
        for entry in torch.cat([gradient.reshape(-1) for gradient in gradients]):
            if not entry.requires_grad:
                rows.append(torch.zeros(sum(p.numel() for p in parameters)).to(entry))
                continue
            row = torch.autograd.grad(entry, parameters, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([part.reshape(-1) for part in row]))
    return torch.stack(rows).detach()
