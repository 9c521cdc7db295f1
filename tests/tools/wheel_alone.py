"""Install the wheel alone in a new virtual environment and use it there as a reader does: ``make test-wheel``.

Options that follow are passed to ``pip install``. The environment, build/wheel/venv, is made anew each time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "wheel"
NOTEBOOK = "01_renyi_entropy.ipynb"
# Beside what the extra `lab` installs.
TOOLS = ("nbval", "pytest")


def run(*command: str | Path, expect: str = "") -> None:
    """Run a command outside of the checkout, whose modules it must not find; print how long it took."""
    start = time.perf_counter()
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        list(map(str, command)), cwd=FOLDER, env=variables | {"CI": "1"}, capture_output=True, text=True, check=False
    )
    shown = " ".join(Path(part).name if Path(part).is_absolute() else str(part) for part in command)
    print(f"{time.perf_counter() - start:6.1f} s  {shown}", flush=True)
    if result.returncode or expect not in result.stdout:
        sys.exit(f"{shown} failed with status {result.returncode}:\n{result.stdout}\n{result.stderr}")


def main(pip_options: list[str]) -> None:
    """Build, install, and run the commands and a notebook."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # instead of the checkout's settings
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(FOLDER), versions=["standard"])
    venv.create(FOLDER / "venv", with_pip=True)
    scripts = FOLDER / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *pip_options]
    pip += ["-c", ROOT / "constraints.txt"]
    run(*pip, "torch")  # first, so that nothing else chooses its build
    run(*pip, f"{wheel}[lab]", *TOOLS)
    where = "import renyi_lab, pathlib; print('venv' in pathlib.Path(renyi_lab.__file__).parts)"
    run(python, "-c", where, expect="True")
    command = scripts / "renyi-lab"
    run(command, "--version", expect="renyi-lab ")
    run(command, "check", expect="course")
    run(command, "tour", "--quick", "--device", "cpu", expect="Figure: ")
    run(command, "notebooks", "course", expect="notebooks copied")
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env", f"course/{NOTEBOOK}")
    print("The wheel works alone.")


if __name__ == "__main__":
    main(sys.argv[1:])
