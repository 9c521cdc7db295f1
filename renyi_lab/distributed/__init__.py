"""Spectra on several processes: ``torchrun --nproc-per-node=2 -m renyi_lab.distributed module:factory``.

The factory is a function of yours, ``factory() -> (model, loss_fn, data)``, that every process calls. Each process
keeps its part of the data, and products with the Hessian are summed over the processes. In programs of one's own that
is

    torch.distributed.init_process_group()
    H = renyi_lab.HessianOperator(model, loss_fn, my_part, process_group=torch.distributed.group.WORLD)
    spectrum = renyi_lab.estimate_spectrum(H, basis="sharded")
"""

from renyi_lab.distributed._shard import shard

__all__ = ["shard"]
