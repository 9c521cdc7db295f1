"""Complex parameters are treated as two real numbers per entry, as torch's own optimizers treat them."""

from functools import partial

import pytest
import torch

from renyi_lab.optim import ASAM, RSAM, SAGM, SAM, FisherSAM

METHODS = {
    "SAM": SAM,
    "ASAM": ASAM,
    "FisherSAM": FisherSAM,
    "SAGM": SAGM,
    "RSAM": RSAM,
    "RSAM divergence": partial(RSAM, form="divergence", rho=0.1),
    "RSAM exact": partial(RSAM, form="exact", rho=0.1),
}
BASES = {"SGD": partial(dict, base=torch.optim.SGD, momentum=0.9), "Adam": partial(dict, base=torch.optim.Adam)}


def loss_of(w, real):
    """A loss that is not a function of |w| alone."""
    return (w.abs().square() * torch.arange(1.0, 7.0).view(2, 3)).sum() + w.real.sum() ** 2 + (real * w.imag[0]).sum()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", METHODS)
def test_steps_are_those_on_real_and_imaginary_parts(name, base):
    start = torch.randn(2, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    w = start.clone().requires_grad_()
    parts = torch.view_as_real(start).clone().requires_grad_()
    reals = [torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    options = BASES[base](lr=0.01)
    of_complex = METHODS[name]([w, reals[0]], **options)
    of_parts = METHODS[name]([parts, reals[1]], **options)
    for _ in range(3):
        for optimizer, current, real in ((of_complex, lambda: w, reals[0]), (of_parts, lambda: parts, reals[1])):

            def closure(optimizer=optimizer, current=current, real=real):
                optimizer.zero_grad()
                tensor = current()
                loss = loss_of(tensor if tensor.is_complex() else torch.view_as_complex(tensor), real)
                loss.backward()
                return loss

            optimizer.step(closure)
        torch.testing.assert_close(torch.view_as_real(w.detach()), parts.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(of_complex.perturbation_norm, of_parts.perturbation_norm)
    torch.testing.assert_close(reals[0], reals[1])
    assert (w.detach() - start).abs().max() > 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_complex_weights_return_bit_for_bit(name):
    w = torch.randn(4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = w.detach().clone()
    optimizer = METHODS[name]([w], torch.optim.SGD, lr=0.1)
    (w.abs().square().sum() + w.real[0]).backward()
    optimizer.first_step()
    assert not torch.equal(w.detach(), before)
    optimizer.restore()
    assert torch.equal(w.detach(), before)
