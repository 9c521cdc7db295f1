"""A JupyterLab server that serves a folder of notebooks."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 180  # on a busy machine; usually three seconds
# The news pop-up needs the internet and covers the notebook.
SETTINGS = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    url: str
    token: str

    def address(self, notebook: Path) -> str:
        """Return the address of a notebook in a separate workspace, so that Lab does not reopen previous ones."""
        name = notebook.as_posix()
        workspace = name.replace("/", "-").removesuffix(".ipynb")
        return f"{self.url}/lab/workspaces/{workspace}/tree/{name}?token={self.token}"


@contextmanager
def running_lab(folder: Path, temporary: Path, import_from: Path) -> Iterator[Lab]:
    """Serve ``folder`` on a free port; Lab saves notebooks in it. All settings and logs are in ``temporary``."""
    for name, values in SETTINGS.items():
        file = temporary / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16))
    # As for a user: progress bars detect CI and pytest by these variables.
    environment = {k: v for k, v in os.environ.items() if k not in {"CI", "PYTEST_VERSION", "PYTEST_CURRENT_TEST"}}
    environment |= {
        "JUPYTER_TOKEN": lab.token,
        "JUPYTER_CONFIG_DIR": str(temporary / "config"),
        "JUPYTER_DATA_DIR": str(temporary / "data"),
        "JUPYTER_RUNTIME_DIR": str(temporary / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(temporary / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(temporary / "workspaces"),
        "IPYTHONDIR": str(temporary / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(import_from), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"]
    log = temporary / "lab.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT, cwd=folder)
    try:
        _await_server(lab, process, log)
        yield lab
    finally:
        process.terminate()  # also shuts down its kernels
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_server(lab: Lab, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    request = urllib.request.Request(f"{lab.url}/api/status", headers={"Authorization": f"token {lab.token}"})
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
