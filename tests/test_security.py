"""What a foreign file or a network could do: nothing is unpickled or evaluated, and nothing is fetched."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import renyi_lab as rl

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [*(ROOT / "renyi_lab").rglob("*.py"), *(ROOT / "docs").glob("*.py")]
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
NETWORK = {"socket", "urllib", "http", "requests", "httpx", "ftplib", "ssl"}
CALLS = {"eval", "exec", "__import__", "torch.load", "joblib.load", "pd.read_pickle", "yaml.load", "torch.hub.load"}


def offences(source: str) -> list[str]:
    """What a module has that would run code from a file, or open a connection."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES | NETWORK]
        elif isinstance(node, ast.ImportFrom):
            top = str(node.module).split(".")[0]
            found += [str(node.module)] if top in MODULES | NETWORK and node.module != "urllib.parse" else []
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += [name] if name in CALLS else []
            allowed = [k for k in node.keywords if k.arg == "allow_pickle" and ast.unparse(k.value) == "False"]
            found += [f"{name} without allow_pickle=False"] if name == "np.load" and not allowed else []
            shell = [k for k in node.keywords if k.arg == "shell" and ast.unparse(k.value) != "False"]
            found += [f"{name}(shell=True)"] if shell else []
    return found


BAD = ["import pickle", "from dill import loads", "eval('1')", "torch.load(p)", "np.load(p)", "f(shell=True)"]


@pytest.mark.parametrize("source", [*BAD, "np.load(p, allow_pickle=True)"])
def test_the_search_finds_what_runs_code_from_files(source: str) -> None:
    assert offences(source)


def test_the_package_unpickles_nothing_evaluates_nothing_and_opens_no_connection() -> None:
    found = {path.name: offences(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {name: what for name, what in found.items() if what} == {}


class Payload:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("as_npz", [True, False])
def test_a_spectrum_file_with_a_pickle_inside_is_refused_and_runs_nothing(tmp_path: Path, as_npz: bool) -> None:
    made, file = tmp_path / "made", tmp_path / "spectrum.npz"
    if as_npz:
        with file.open("wb") as opened:
            np.savez(opened, description=np.array([Payload(made)], dtype=object))
    else:
        file.write_bytes(pickle.dumps(Payload(made)))
    with pytest.raises(ValueError, match=r"spectrum\.npz"):
        rl.Spectrum.load(file)
    assert not made.exists()


@pytest.mark.slow
def test_import_notebook_and_explorer_page_need_no_network() -> None:
    command = [sys.executable, ROOT / "tests/tools/offline.py", ROOT / "notebooks/01_renyi_entropy.ipynb"]
    environment = {**os.environ, "CI": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=250)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines()[-1] == "offline True"


REACH_OUT = """
import socket, urllib.request
for call in (
    lambda: urllib.request.urlopen("http://example.org", timeout=1),
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 53)),
    lambda: socket.gethostbyname("example.org"),
):
    try:
        call()
    except OSError as error:
        print("nothing here may ask" in str(error))
here = socket.create_server(("127.0.0.1", 0))
print(socket.create_connection(here.getsockname()).fileno() > 0)
"""


def test_notebooks_and_docs_run_in_processes_that_reach_no_other_machine() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests/tools/no_network")}
    result = subprocess.run([sys.executable, "-c", REACH_OUT], capture_output=True, text=True, env=environment)
    assert result.stdout.split() == 5 * ["True"], result.stderr
    commands = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if line.startswith("\t")]
    chosen = [line for line in commands if any(word in line for word in ("$(NBVAL)", "mkdocs build", "generate.py"))]
    assert len(chosen) == 3
    assert all("$(NO_NETWORK)" in line for line in chosen)
