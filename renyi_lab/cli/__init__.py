"""The console command ``renyi-lab``: the tour, the course, and a check of the installation."""

import sys

from renyi_lab._utils.optional import optional_import
from renyi_lab._utils.standard_streams import spell_out_what_cannot_be_encoded

__all__ = ["main"]


def main() -> None:
    """Run the command; where typer or rich is not installed, exit with the command that installs them."""
    spell_out_what_cannot_be_encoded()
    try:
        with optional_import("typer and rich", extra="cli", needed_by="The command renyi-lab"):
            from renyi_lab.cli._app import app
    except ModuleNotFoundError as error:
        sys.exit(str(error))
    try:
        app(prog_name="renyi-lab")
    except OSError as error:  # such as standard output into a file on a full disk
        sys.exit(f"renyi-lab: {error.strerror or error}; what was to be written is incomplete.")
