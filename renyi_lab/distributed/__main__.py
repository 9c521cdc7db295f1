"""``torchrun --nproc-per-node=2 -m renyi_lab.distributed module:factory --out FOLDER``."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch

from renyi_lab._utils.optional import optional_import
from renyi_lab._utils.standard_streams import spell_out_what_cannot_be_encoded
from renyi_lab._utils.validation import check_reals
from renyi_lab._utils.whole_file import whole_file, writable
from renyi_lab.distributed import shard
from renyi_lab.operators import HessianOperator
from renyi_lab.sharpness import SharpnessReport, sharpness_report
from renyi_lab.spectrum import Spectrum, estimate_spectrum

with optional_import("typer", extra="cli", needed_by="The command python -m renyi_lab.distributed"):
    import typer

_ALPHAS = (0.5, 1.0, 1.5, 2.0)
# What a user's own factory, data and options may raise; shown as one line.
_ERRORS = (ValueError, TypeError, ImportError, AttributeError, OSError, RuntimeError)


def main(
    factory: Annotated[str, typer.Argument(help="package.module:function that returns (model, loss_fn, data).")],
    out: Annotated[Path, typer.Option(help="Folder for spectrum.npz, report.csv and sharpness.csv.")],
    num_matvecs: Annotated[int, typer.Option(min=1, help="Number of Hessian products.")] = 200,
    alpha: Annotated[
        list[float] | None, typer.Option(help="Order of the entropy; may be repeated. Default 0.5, 1, 1.5, 2.")
    ] = None,
    basis: Annotated[str, typer.Option(help="Where Lanczos vectors are kept: device, cpu or sharded.")] = "sharded",
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Keep Lanczos vectors in half precision.")] = False,
    reorthogonalize: Annotated[str, typer.Option(help="full; or none, which keeps no vectors.")] = "full",
    method: Annotated[str, typer.Option(help="double_backward or finite_difference.")] = "double_backward",
    micro_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples that are differentiated at a time.")
    ] = None,
    sharpness: Annotated[bool, typer.Option("--sharpness", help="Compute all sharpness measures, too.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: cuda where there is one.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until a process that does not answer ends all.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the probes.")] = 0,
) -> None:
    """Estimate the spectrum of a loss Hessian whose data are shared among the processes of torchrun."""
    spell_out_what_cannot_be_encoded()
    try:
        alphas = check_reals("alpha", alpha or _ALPHAS, 0.0, allow_infinite=True)
        if sharpness and method != "double_backward":
            raise ValueError(f"--sharpness needs --method double_backward, got {method!r}; leave one of them out.")
        make = _load(factory)
        with _process_group(device, timeout) as (rank, num_ranks, place):
            model, loss_fn, data = _parts(make(), factory)
            if rank == 0:  # before the long computation
                out.mkdir(parents=True, exist_ok=True)
                for name in ("spectrum.npz", "report.csv", *(["sharpness.csv"] if sharpness else [])):
                    writable(out / name, name)
            part, group = shard(data, rank, num_ranks), torch.distributed.group.WORLD
            H = HessianOperator(
                model.to(place), loss_fn, part, method=method, micro_batch_size=micro_batch_size, process_group=group
            )
            show = None if rank == 0 else False
            spectrum = estimate_spectrum(
                H,
                num_matvecs=num_matvecs,
                seed=seed,
                basis=basis,
                basis_dtype=torch.bfloat16 if bfloat16 else None,
                reorthogonalize=reorthogonalize,
                progress=show,
            )
            if rank == 0:
                typer.echo(f"{H!r}, {num_ranks} processes")
                _write(spectrum, alphas, out)
            if sharpness:
                report = sharpness_report(
                    H.model, loss_fn, part, num_matvecs=num_matvecs, seed=seed, progress=show, process_group=group
                )
                if rank == 0:
                    _write_sharpness(report, out)
    except _ERRORS as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        raise typer.Exit(1) from None


def _load(name: str) -> Any:
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"factory must be written as package.module:function, got {name!r}.")
    sys.path.insert(0, os.getcwd())
    found = getattr(importlib.import_module(module), function, None)
    if not callable(found):
        raise AttributeError(f"module {module!r} has no function {function!r}.")
    return found


def _parts(found: Any, name: str) -> tuple[Any, Any, Any]:
    if not isinstance(found, tuple) or len(found) != 3:
        raise TypeError(f"{name} must return (model, loss_fn, data), got {type(found).__name__}.")
    return found


@contextlib.contextmanager
def _process_group(device: str | None, timeout: float) -> Iterator[tuple[int, int, torch.device]]:
    """The group of torchrun's processes, or of this one alone."""
    import torch.distributed as dist

    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    place = torch.device(kind, int(os.environ.get("LOCAL_RANK", 0))) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    limit = datetime.timedelta(seconds=timeout)
    backend = "nccl" if kind == "cuda" else "gloo"
    with contextlib.ExitStack() as stack:
        if "RANK" in os.environ:
            dist.init_process_group(backend, timeout=limit)
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            meeting = Path(folder, "meeting").as_uri()
            dist.init_process_group(backend, init_method=meeting, rank=0, world_size=1, timeout=limit)
        stack.callback(dist.destroy_process_group)
        yield dist.get_rank(), dist.get_world_size(), place


def _write(spectrum: Spectrum, alphas: Sequence[float], out: Path) -> None:
    spectrum.save(out / "spectrum.npz")
    table = spectrum.report(alphas)
    with whole_file(out / "report.csv") as partial:
        table.to_csv(partial)
    typer.echo(table.to_string())
    typer.echo(f"Written to {out}.")


def _write_sharpness(report: SharpnessReport, out: Path) -> None:
    with whole_file(out / "sharpness.csv") as partial:
        report.to_frame().to_csv(partial)
    typer.echo(str(report))
    typer.echo(f"Written to {out / 'sharpness.csv'}.")


if __name__ == "__main__":
    typer.run(main)
