"""The commands of ``renyi-lab``; a command imports torch and the rest of the package only when it runs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from renyi_lab._utils.standard_streams import is_terminal
from renyi_lab._utils.whole_file import whole_file
from renyi_lab._version import __version__

if TYPE_CHECKING:
    from renyi_lab.cli._tour import Tour

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# Wide enough for the tables in a log file or a pipe, where rich would otherwise assume 80 columns.
# No markup: rich would drop the bracketed part of a path or of `renyi-lab[lab]`.
_console = Console(width=None if is_terminal(sys.stdout) else 100, highlight=False, markup=False, emoji=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        _console.print(f"renyi-lab {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """See a loss Hessian: spectrum, Rényi entropy and sharpness, bounds, RSAM."""


@app.command()
def tour(
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed: weights, batch order, probes.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps, or auto: CUDA, then MPS, then CPU.")] = "auto",
    out: Annotated[Path, typer.Option(help="Where to write the figure (PNG, PDF or SVG).")] = Path("renyi_tour.png"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A third of the training and fewer products, to see that everything runs.")
    ] = False,
) -> None:
    """Train on MNIST-1D, estimate the Hessian's spectrum and entropy, bound the error, compare RSAM with SGD."""
    chosen_device = _device(device)
    _check_writable(out)
    from renyi_lab.cli._tour import run_tour, tour_figure

    _console.print(f"Training an MLP 40-100-100-10 on MNIST-1D with SGD and with RSAM (seed {seed}, {chosen_device}).")
    _console.print("On two free cores this takes about a quarter of a minute.")
    try:
        result = run_tour(seed=seed, device=chosen_device, quick=quick)
    except ModuleNotFoundError as error:  # the extra `data` is not installed
        _fail(str(error))
    _console.print(_measurements(result))
    _console.print(_comparison(result))
    try:
        with whole_file(out) as partial:
            tour_figure(result).savefig(partial, dpi=150, format=out.suffix[1:].lower())
    except OSError as error:
        _fail(f"Cannot write the figure to {out}: {error.strerror or error}. Name another file.")
    _console.print(f"Figure: {out}   ({result.seconds:.0f} s)")


@app.command()
def notebooks(
    directory: Annotated[Path, typer.Argument(help="New or empty folder for the copy.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite notebooks of the same name.")] = False,
    student: Annotated[
        bool, typer.Option("--student", help="Without reference solutions, stored outputs and teachers' notes.")
    ] = False,
) -> None:
    """Copy the course's notebooks to DIRECTORY; open them with `renyi-lab lab DIRECTORY`."""
    source = _course()
    patterns = ["*.ipynb", "*.npz", "results/*.json"]
    patterns += [] if student else ["solutions/*.ipynb", "*.md"]
    files = sorted(path.relative_to(source) for pattern in patterns for path in source.glob(pattern))
    if os.path.realpath(directory) == os.path.realpath(source):  # Path.resolve fails at a link to itself
        raise typer.BadParameter(f"{directory} is the course itself; name another folder.", param_hint="DIRECTORY")
    if student and os.path.exists(directory / "solutions"):  # --force would leave them there
        raise typer.BadParameter(
            f"{directory} contains solutions, so it would be no student edition; name another folder.",
            param_hint="DIRECTORY",
        )
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise typer.BadParameter(f"{directory} is a file; name a folder.", param_hint="DIRECTORY")
    existing = [str(file) for file in files if os.path.exists(directory / file)]
    if existing and not force:
        raise typer.BadParameter(
            f"{directory} already contains {', '.join(existing)}; nothing was copied. "
            "Name another folder, or add --force.",
            param_hint="DIRECTORY",
        )
    try:
        for file in files:
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            _copy(source / file, directory / file, student=student)
    except OSError as error:
        _fail(f"Cannot write to {directory}: {error.strerror or error}. Name another folder.")
    number = sum(file.suffix == ".ipynb" for file in files)
    _console.print(f"{number} notebooks copied to {directory}. Open them with: renyi-lab lab {directory}")


def _copy(source: Path, target: Path, *, student: bool) -> None:
    if target.is_symlink():  # --force replaces the link and not what it points at, which may be anywhere
        target.unlink()
    if student and source.suffix == ".ipynb":
        from renyi_lab.course import student_edition

        made = student_edition(json.loads(source.read_text(encoding="utf-8")))
        with whole_file(target) as partial:
            partial.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    else:
        with whole_file(target) as partial:
            shutil.copyfile(source, partial)


@app.command(context_settings={"ignore_unknown_options": True})
def lab(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIRECTORY] [JUPYTER OPTIONS]",
            help="Folder made by `renyi-lab notebooks`, and options for JupyterLab, such as --no-browser.",
        ),
    ] = None,
) -> None:
    """Open the course in JupyterLab (default: the folder renyi_course, copied first if it does not exist)."""
    try:
        importlib.metadata.version("jupyterlab")
    except importlib.metadata.PackageNotFoundError:
        _fail("JupyterLab is not installed. Install it with: pip install 'renyi-lab[lab]'")
    options = list(arguments or [])
    target = Path(options.pop(0)) if options and not options[0].startswith("-") else Path("renyi_course")
    if not os.path.exists(target):  # Path.exists raises at a long name before Python 3.14
        notebooks(target)
    start = target / "00_start_here.ipynb"
    opened = start if start.exists() else target
    raise typer.Exit(subprocess.call([sys.executable, "-m", "jupyterlab", str(opened), *options]))


@app.command()
def check() -> None:
    """Check that Python, torch, its device, the widgets, JupyterLab and the kernel work together."""
    from renyi_lab.cli._check import check_installation

    table = Table("part", "needed", "found", "verdict", title="renyi-lab check", title_justify="left")
    results = check_installation()
    for result in results:
        verdict = Text("ok", "green") if result.ok else Text.assemble(("fix: ", "red"), result.fix)
        table.add_row(result.part, result.needed, result.found, verdict)
    _console.print(table)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


def _measurements(result: Tour) -> Table:
    from renyi_lab.cli._tour import ALPHAS

    spectrum, bound = result.spectrum, result.bound
    table = Table("quantity", "value", "± s.e.", "remark", title="The network trained with SGD", title_justify="left")
    train, test = result.train_results["SGD"], result.test_results["SGD"]
    table.add_row("training accuracy", f"{train.accuracy:.3f}", "", f"loss {train.loss:.4f}")
    table.add_row("test accuracy", f"{test.accuracy:.3f}", "", f"loss {test.loss:.3f}")
    trace = spectrum.trace
    remark = f"{spectrum.num_matvecs} Hessian products, n = {spectrum.dim:,}"
    table.add_row("tr H", f"{trace.value:.3g}", f"{trace.standard_error:.2g}", remark)
    table.add_row(
        "λ_max", f"{spectrum.max_eigenvalue:.3g}", "", f"{spectrum.negative_fraction:.1%} of tr|H| is negative"
    )
    for alpha in ALPHAS:
        entropy = spectrum.renyi_entropy(alpha)
        directions = f"as if {spectrum.effective_number(alpha).value:,.0f} directions were curved"
        table.add_row(f"H_α, α = {alpha:g} (nats)", f"{entropy.value:.3f}", f"{entropy.standard_error:.3f}", directions)
    table.add_row("α by the paper's rule", f"{result.choice.alpha:g}", "", f"{result.choice.profile} profile")
    verdict = "vacuous: chance is 0.90" if bound.vacuous else "chance is 0.90"
    table.add_row("bound on the test error", f"{bound.value:.3f}", "", f"PAC-Bayes, 95 %; {verdict}")
    return table


def _comparison(result: Tour) -> Table:
    table = Table("optimizer", "train accuracy", "test accuracy", "test loss", "gradients", title_justify="left")
    table.title = "RSAM beside SGD: same epochs, more gradients; one seed"
    for name, history in result.histories.items():
        train, test = result.train_results[name], result.test_results[name]
        table.add_row(
            name, f"{train.accuracy:.3f}", f"{test.accuracy:.3f}", f"{test.loss:.3f}", f"{history.num_gradients:,}"
        )
    return table


def _device(name: str) -> str:
    import torch

    from renyi_lab._utils.device import default_device

    if name == "auto":
        return str(default_device())
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise typer.BadParameter(f"{name!r} cannot be used here ({reason}). Try cpu.", param_hint="--device") from None
    return name


def _check_writable(out: Path) -> None:
    """Refuse a figure file that cannot be written before the training rather than after it."""
    from renyi_lab._utils.whole_file import without_links

    if out.suffix.lower() not in {".png", ".pdf", ".svg"}:
        raise typer.BadParameter(f"{out} must end in .png, .pdf or .svg.", param_hint="--out")
    try:
        without_links(out)
    except OSError as error:
        raise typer.BadParameter(str(error), param_hint="--out") from None
    folder = out.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"the folder {folder} does not exist or cannot be written.", param_hint="--out")
    if out.exists() and not (out.is_file() and os.access(out, os.W_OK)):
        raise typer.BadParameter(f"{out} exists and cannot be overwritten.", param_hint="--out")


def _course() -> Path:
    from renyi_lab.course import course_directory

    try:
        return course_directory()
    except FileNotFoundError as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
