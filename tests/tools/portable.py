"""Run the tests with each instruction set of the processor, with one and with two threads.

    python tests/tools/portable.py [--only CAPABILITY:THREADS] [--list]

The results must not depend on either: torch's kernels round differently with other vector instructions
(``ATEN_CPU_CAPABILITY``) and with another number of threads (``OMP_NUM_THREADS``). Unit tests, doctests and the
notebooks run; the browser tests and those of texts, files, messages, commands and interrupts do not, since they compare
no numbers that torch computes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
X86 = ("default", "avx2", "avx512")  # values of ATEN_CPU_CAPABILITY, each including those before it
THREADS = (1, 2)
NO_NUMBERS = (
    "diagrams",
    "docs",
    "fuzz",
    "study/test_interrupts.py",
    "test_distributed_command.py",
    "test_notebooks.py",
    "test_packaging.py",
    "test_public_names.py",
    "test_security.py",
    "test_structure.py",
    "test_teaching.py",
    "utils/test_bad_arguments.py",
    "utils/test_optional.py",
)
LEFT_OUT = tuple(f"--ignore=tests/{name}" for name in NO_NUMBERS)
UNIT = ("-m", "not browser", *LEFT_OUT, "--dist", "loadscope", "renyi_lab", "tests")
NOTEBOOKS = ("--nbval", "--nbval-current-env", "--nbval-cell-timeout", "300", "--dist", "loadfile", "notebooks")


def capabilities() -> tuple[str, ...]:
    """The values of ``ATEN_CPU_CAPABILITY`` that this processor supports; other than x86, the default alone."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability().lower())"
    unset = {name: value for name, value in os.environ.items() if name != "ATEN_CPU_CAPABILITY"}
    best = subprocess.run([sys.executable, "-c", code], env=unset, capture_output=True, text=True, check=True).stdout
    return X86[: X86.index(best.strip()) + 1] if best.strip() in X86 else X86[:1]


def run(capability: str, threads: int) -> bool:
    """Run the unit tests and the notebooks in one configuration, print the time, and return whether all passed."""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": str(threads), "CI": "1"}
    passed = True
    for name, arguments in (("unit tests", UNIT), ("notebooks", NOTEBOOKS)):
        start = time.perf_counter()
        processes = 2 if (os.cpu_count() or 1) >= 2 * threads else 0  # 0: in this process
        command = [sys.executable, "-m", "pytest", "-q", "--numprocesses", str(processes), *arguments]
        status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        outcome = "passed" if status == 0 else f"failed (pytest exited with {status})"
        print(f"== {capability}:{threads} {name} {outcome} in {time.perf_counter() - start:.0f} s", flush=True)
        passed = passed and status == 0
    return passed


def main() -> None:
    """Run the configurations that the arguments name."""
    supported = [f"{capability}:{threads}" for capability in capabilities() for threads in THREADS]
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=supported, help="one configuration: instruction set and number of threads")
    parser.add_argument("--list", action="store_true", help="print the configurations and stop")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(supported))
        return
    chosen = [arguments.only] if arguments.only else supported
    failed = [name for name in chosen if not run(name.split(":")[0], int(name.split(":")[1]))]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
