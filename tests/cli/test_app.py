"""The console script: what it prints, what it refuses before any work, and which files it writes."""

from __future__ import annotations

import importlib.metadata
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner, Result

import renyi_lab
import renyi_lab.cli._tour as tour_module
from renyi_lab import Spectrum, choose_alpha
from renyi_lab.bounds import isotropic_pac_bayes
from renyi_lab.cli import _app as app_module
from renyi_lab.cli import _check, main
from renyi_lab.cli._app import app
from renyi_lab.cli._tour import Tour
from renyi_lab.course import _files as _course_files
from renyi_lab.training import Evaluation, History

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def plain(result: Result) -> str:
    """What was printed, without the frames that break lines."""
    return " ".join(result.output.replace("│", " ").split())


@pytest.fixture
def example_tour() -> Tour:
    spectrum = Spectrum.from_eigenvalues([4.0, 3.0, 2.0, -1.0] + [1e-4] * 96, num_matvecs=100)
    bound = isotropic_pac_bayes(0.1, 25.0, sigma=0.1, num_samples=4000, num_draws=20, num_sigmas=4).against(0.9)
    histories = {
        "SGD": History((0.5,), (0.9,), (1.0,), (0.65,), num_gradients=1920, seconds=1.0),
        "RSAM": History((0.6,), (0.88,), (0.9,), (0.67,), num_gradients=3680, seconds=1.0),
    }
    train = {"SGD": Evaluation(0.0123, 0.987, 4000), "RSAM": Evaluation(0.0456, 0.976, 4000)}
    test = {"SGD": Evaluation(1.234, 0.654, 1000), "RSAM": Evaluation(1.111, 0.677, 1000)}
    return Tour(spectrum, choose_alpha(spectrum), bound, histories, train, test, seconds=42.0)


@pytest.fixture
def tours(monkeypatch: pytest.MonkeyPatch, example_tour: Tour) -> list[dict[str, Any]]:
    """The calls of `run_tour`, replaced by one that returns the example."""
    calls: list[dict[str, Any]] = []

    def fake(**options: Any) -> Tour:
        calls.append(options)
        return example_tour

    monkeypatch.setattr(tour_module, "run_tour", fake)
    return calls


@pytest.mark.slow
def test_the_tour_prints_every_measurement_and_writes_the_figure(
    tours: list[dict[str, Any]], example_tour: Tour, tmp_path: Path
) -> None:
    out = tmp_path / "figure [1].png"
    result = run("tour", "--seed", "3", "--device", "cpu", "--out", out, "--quick")
    assert result.exit_code == 0, result.output
    assert tours == [{"seed": 3, "device": "cpu", "quick": True}]
    assert out.read_bytes().startswith(b"\x89PNG")
    printed = plain(result)
    spectrum = example_tour.spectrum
    for alpha in (0.5, 1, 1.5, 2):
        assert f"H_α, α = {alpha:g} (nats) {spectrum.renyi_entropy(alpha).value:.3f} 0.000" in printed
    assert "training accuracy 0.987" in printed
    assert "test accuracy 0.654" in printed
    assert "tr H 8.01 0 100 Hessian products, n = 100" in printed
    assert "λ_max 4 10.0% of tr|H| is negative" in printed
    assert "α by the paper's rule 1.5 uniform profile" in printed
    assert f"bound on the test error {example_tour.bound.value:.3f}" in printed
    assert "SGD 0.987 0.654 1.234 1,920" in printed
    assert "RSAM 0.976 0.677 1.111 3,680" in printed
    assert f"Figure: {out} (42 s)" in " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["pdf", "svg"])
def test_the_figure_s_format_follows_its_name(tours: list[dict[str, Any]], tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"figure.{suffix}"
    assert run("tour", "--out", out).exit_code == 0
    assert {"pdf": b"%PDF", "svg": b"<?xml"}[suffix] == out.read_bytes()[: 4 if suffix == "pdf" else 5]
    assert tours[0]["seed"] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "unknown"], "'unknown' cannot be used here"),
        (["--device", "meta"], "'meta' cannot be used here"),
        (["--device", "cuda:99"], "Try cpu"),
        (["--out", "figure.gif"], "must end in .png, .pdf or .svg"),
        (["--out", "missing/figure.png"], "the folder missing does not exist or cannot be written"),
        (["--out", "folder.png"], "exists and cannot be overwritten"),
        (["--out", "loop.png"], "path is not a file name"),
        (["--out", "a" * 300 + ".png"], "path is not a file name"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**70)], "--seed"),
        (["--seed", "pi"], "--seed"),
    ],
)
def test_what_would_fail_is_refused_before_the_work_starts(
    tours: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    result = run("tour", *arguments)
    assert result.exit_code == 2
    assert message in plain(result).partition("Error")[2]
    assert tours == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "loop.png"]


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "site-packages" / "renyi_lab"
    hidden = (".ipynb_checkpoints/00-checkpoint.ipynb", "solutions/.ipynb_checkpoints/01-checkpoint.ipynb", "notes.txt")
    for name in (*COPIED, *hidden):
        file = package / "notebooks" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"new {name}", encoding="utf-8")
    monkeypatch.setattr(_course_files, "_PACKAGE", package)
    return package / "notebooks"


def files(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}


STUDENTS = ("00_start_here.ipynb", "course_network.npz", "results/a.json")
COPIED = {name: f"new {name}" for name in (*STUDENTS, "solutions/01.ipynb", "README.md")}


@pytest.mark.usefixtures("course")
def test_notebooks_are_copied_with_their_folders_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a" / "copy [2]"
    result = run("notebooks", target)
    assert result.exit_code == 0
    assert files(target) == COPIED
    assert f"2 notebooks copied to {target}." in " ".join(result.output.split())


@pytest.mark.usefixtures("course")
@pytest.mark.parametrize("name", ["loop", "loop/folder", "a" * 300])
@pytest.mark.parametrize("command", ["notebooks", "lab"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, command: str, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    result = run(command, tmp_path / name)
    assert result.exit_code == 1
    assert f"Cannot write to {tmp_path / name}" in result.output


def test_students_get_the_course_without_solutions_and_outputs(course: Path, tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": "Try. Solved in [it](solutions/01.ipynb). Go on."},
        {
            "cell_type": "code",
            "metadata": {"tags": ["reference"]},
            "source": "if not exercises.check_f(f).solved:\n\n    def f(): return 1",
            "outputs": [{}],
            "execution_count": 1,
        },
    ]
    (course / "00_start_here.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4}), encoding="utf-8")
    target = tmp_path / "students"
    result = run("notebooks", target, "--student")
    assert result.exit_code == 0, result.output
    assert set(files(target)) == set(STUDENTS)
    text, code = json.loads((target / "00_start_here.ipynb").read_text(encoding="utf-8"))["cells"]
    assert text["source"] == "Try. Go on."
    assert code["source"].startswith("f = exercises.check_f(f).function  #")
    assert (code["outputs"], code["execution_count"]) == ([], None)


@pytest.mark.parametrize("options", [["--force"], ["--force", "--student"]])
def test_the_course_itself_is_not_overwritten(course: Path, options: list[str]) -> None:
    before = files(course)
    result = run("notebooks", course / ".." / "notebooks", *options)
    assert result.exit_code == 2
    assert "is the course itself" in plain(result)
    assert files(course) == before


@pytest.mark.usefixtures("course")
def test_a_folder_with_solutions_becomes_no_student_edition(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    assert run("notebooks", target).exit_code == 0
    result = run("notebooks", target, "--student", "--force")
    assert result.exit_code == 2
    assert "contains solutions" in plain(result)
    assert files(target) == COPIED


@pytest.mark.usefixtures("course")
def test_existing_notebooks_are_overwritten_only_with_force(tmp_path: Path) -> None:
    target = tmp_path / "copy"
    (target / "solutions").mkdir(parents=True)
    (target / "solutions" / "01.ipynb").write_text("mine", encoding="utf-8")
    (target / "other.ipynb").write_text("mine too", encoding="utf-8")
    before = files(target)
    refused = run("notebooks", target)
    assert refused.exit_code == 2
    assert "already contains solutions/01.ipynb; nothing was copied" in plain(refused)
    assert "--force" in plain(refused)
    assert files(target) == before
    assert run("notebooks", target, "--force").exit_code == 0
    assert files(target) == {**COPIED, "other.ipynb": "mine too"}


@pytest.mark.usefixtures("course")
def test_a_file_is_refused_as_the_target_folder(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("mine", encoding="utf-8")
    for options in ([], ["--force"]):
        result = run("notebooks", target, *options)
        assert (result.exit_code, target.read_text(encoding="utf-8")) == (2, "mine")
        assert "is a file; name a folder" in plain(result)


def test_an_incomplete_installation_reports_how_to_fix_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_course_files, "_PACKAGE", tmp_path / "renyi_lab")
    result = run("notebooks", tmp_path / "copy")
    assert result.exit_code == 1
    assert "Install the package again" in result.output
    assert not (tmp_path / "copy").exists()


def hide(monkeypatch: pytest.MonkeyPatch, *hidden: str, **versions: str) -> None:
    """Make distributions appear not to be installed, or in another version."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in hidden:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Command lines that `renyi-lab lab` would start."""
    commands: list[list[str]] = []
    hide(monkeypatch, jupyterlab="4.4.0")
    monkeypatch.setattr(subprocess, "call", lambda command: commands.append(command) or 7)
    return commands


@pytest.mark.usefixtures("course")
def test_lab_opens_a_copy_of_the_course_and_never_overwrites_it(
    started: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("lab").exit_code == 7, "JupyterLab's own exit code"
    copy = tmp_path / "renyi_course"
    assert files(copy) == COPIED
    (copy / "00_start_here.ipynb").write_text("mine", encoding="utf-8")
    assert run("lab", "--no-browser", "--port", "8899").exit_code == 7
    assert files(copy)["00_start_here.ipynb"] == "mine"
    opened = [sys.executable, "-m", "jupyterlab", str(Path("renyi_course") / "00_start_here.ipynb")]
    assert started == [opened, [*opened, "--no-browser", "--port", "8899"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["renyi_course", "site-packages"]


@pytest.mark.usefixtures("course")
def test_lab_opens_a_folder_without_the_first_notebook_unchanged(started: list[list[str]], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    run("lab", folder, "--", "--no-browser")
    assert started == [[sys.executable, "-m", "jupyterlab", str(folder), "--no-browser"]]
    assert files(folder) == {}


@pytest.mark.usefixtures("course")
def test_lab_without_jupyterlab_reports_what_to_install_and_copies_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hide(monkeypatch, "jupyterlab")
    result = run("lab")
    assert result.exit_code == 1
    assert "pip install 'renyi-lab[lab]'" in result.output
    assert not (tmp_path / "renyi_course").exists()


def set_kernel(patch: pytest.MonkeyPatch, command: str) -> None:
    kernel = SimpleNamespace(argv=[command])
    patch.setattr("jupyter_client.kernelspec.KernelSpecManager.get_kernel_spec", lambda *_: kernel)


@pytest.fixture
def fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation whose parts fit together, whatever is installed here."""
    hide(monkeypatch, ipywidgets="8.1.5", jupyterlab="4.4.0", jupyterlab_widgets="3.0.13")
    set_kernel(monkeypatch, sys.executable)


@pytest.mark.usefixtures("fitting")
def test_check_lists_every_part_and_succeeds_when_all_fit() -> None:
    result = run("check")
    assert result.exit_code == 0, result.output
    for part in (
        "Python",
        "torch",
        "second derivatives",
        "ipywidgets",
        "jupyterlab",
        "widgets in JupyterLab",
        "kernel",
        "course",
    ):
        assert part in result.output
    assert "Hessian of Σx³ times 1: [6.0, 12.0]" in plain(result), "text in brackets is printed"
    assert "fix:" not in result.output


def set_course(patch: pytest.MonkeyPatch, package: Path, *, empty: bool) -> None:
    patch.setattr(_course_files, "_PACKAGE", package)
    if empty:
        (package / "notebooks").mkdir(parents=True)


def break_second_derivatives(patch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no kernel image\nand a long trace")

    patch.setattr("renyi_lab.operators.hvp", broken)


@pytest.mark.usefixtures("fitting")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda patch, _: hide(patch, "jupyterlab"),
            "jupyterlab 4.2 or newer not installed fix: pip install 'renyi-lab[lab]'",
        ),
        (
            lambda patch, _: hide(patch, "ipywidgets"),
            "ipywidgets 8.1 or newer not installed fix: pip install 'ipywidgets>=8.1'",
        ),
        (
            lambda patch, _: hide(patch, ipywidgets="7.8.1"),
            "ipywidgets 8.1 or newer 7.8.1 fix: pip install 'ipywidgets>=8.1'",
        ),
        (
            lambda patch, _: hide(patch, jupyterlab_widgets="1.1.0"),
            "widgets in JupyterLab 3.x 1.1.0 fix: pip install -U jupyterlab_widgets",
        ),
        (
            lambda patch, _: hide(patch, "jupyterlab_widgets"),
            "widgets in JupyterLab 3.x not installed fix: pip install -U jupyterlab_widgets",
        ),
        (lambda patch, _: set_kernel(patch, "/elsewhere/python"), "/elsewhere/python fix:"),
        (
            lambda patch, _: break_second_derivatives(patch),
            "second derivatives [6.0, 12.0] no kernel image fix: reinstall torch",
        ),
        (lambda patch, folder: set_course(patch, folder, empty=False), "not found fix: The course is neither in"),
        (lambda patch, folder: set_course(patch, folder, empty=True), "0 notebooks, solutions to 0 fix: install"),
    ],
)
def test_check_names_the_problem_and_its_fix_and_fails(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    change: Callable[[pytest.MonkeyPatch, Path], None],
    message: str,
) -> None:
    change(monkeypatch, tmp_path / "renyi_lab")
    result = run("check")
    assert result.exit_code == 1
    assert message in plain(result)


@pytest.mark.usefixtures("fitting")
def test_check_gives_the_command_that_registers_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    set_kernel(monkeypatch, "/elsewhere/python")
    assert "ipykernel install --sys-prefix --name python3" in plain(run("check"))


@pytest.mark.usefixtures("fitting", "course")
def test_check_counts_the_course_that_is_installed() -> None:
    assert "course its notebooks 1 notebooks, solutions to 1 ok" in plain(run("check"))


@pytest.mark.usefixtures("fitting")
def test_check_asks_for_the_versions_that_the_package_declares() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {r.name: r for r in map(Requirement, table["dependencies"] + table["optional-dependencies"]["lab"])}
    needed = {result.part: result.needed for result in _check.check_installation()}
    for name in ("torch", "ipywidgets", "jupyterlab"):
        (specifier,) = declared[name].specifier
        assert needed[name] == f"{specifier.version} or newer"
    assert needed["Python"] == f"{table['requires-python'].removeprefix('>=')} or newer"


@pytest.mark.slow
def test_python_m_renyi_lab_is_the_console_script() -> None:
    command = [sys.executable, "-m", "renyi_lab"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert shown.returncode == 0
    assert "Usage: renyi-lab [OPTIONS] COMMAND" in shown.stdout
    for name in ("tour", "notebooks", "lab", "check"):
        assert f"│ {name} " in shown.stdout


def test_the_tour_without_its_data_set_reports_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: Any) -> Tour:
        raise ModuleNotFoundError("it needs mnist1d: pip install 'renyi-lab[data]'")

    monkeypatch.setattr(tour_module, "run_tour", missing)
    result = run("tour", "--device", "cpu", "--out", tmp_path / "figure.png")
    assert result.exit_code == 1
    assert "pip install 'renyi-lab[data]'" in result.output
    assert list(tmp_path.iterdir()) == []


def test_version_is_printed_and_ends_the_command() -> None:
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"renyi-lab {renyi_lab.__version__}\n")


class Pipe(io.TextIOWrapper):
    """Standard output that is redirected, in an encoding that lacks some letters."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)

    def printed(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


def run_main(monkeypatch: pytest.MonkeyPatch, stdout: Any, *arguments: str) -> int:
    """Call the console script's function, as in a process of its own."""
    monkeypatch.setattr(sys, "argv", ["renyi-lab", *arguments])
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437", "utf-8"])
@pytest.mark.parametrize("command", ["--help", "check", "tour"])
def test_letters_that_the_output_cannot_encode_are_spelled_out(
    command: str, encoding: str, tours: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = [_check.CheckResult("second derivatives", "[6.0, 12.0]", "Hessian of Σx³ times 1", ok=True)]
    monkeypatch.setattr(_check, "check_installation", lambda: passed)
    stdout = Pipe(encoding)
    options = ["--device", "cpu", "--out", str(tmp_path / "figure.png")] if command == "tour" else []
    assert run_main(monkeypatch, stdout, command, *options) == 0
    expected = {"--help": ["sharpness, bounds"], "check": ["Hessian of sumx"], "tour": ["H_alpha, alpha = 1 (nats)"]}
    if encoding == "utf-8":
        expected |= {"check": ["Σx³"], "tour": ["H_α, α = 1 (nats)"]}
    if encoding == "cp437":  # has α and Σ
        expected |= {"check": ["Hessian of Σx"], "tour": ["H_α, α = 1 (nats)"]}
    for text in expected[command]:
        assert text in stdout.printed()


def test_check_runs_without_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_check, "check_installation", list)
    monkeypatch.setattr(sys, "stdout", None)
    app_module.app(["check"], standalone_mode=False)


def test_a_link_in_the_folder_is_replaced_and_what_it_points_at_is_left_alone(tmp_path):
    outside, folder = tmp_path / "outside.txt", tmp_path / "course"
    outside.write_text("mine")
    folder.mkdir()
    (folder / "00_start_here.ipynb").symlink_to(outside)
    assert run("notebooks", folder, "--force").exit_code == 0
    assert outside.read_text() == "mine"
    assert not (folder / "00_start_here.ipynb").is_symlink()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_onto_a_full_disk_is_said_in_one_line():
    command = [sys.executable, "-c", "from renyi_lab.cli import main; main()", "--version"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60, cwd=ROOT
        )
    assert result.returncode == 1
    assert "No space left" in result.stderr
    assert "Traceback" not in result.stderr
