"""The console command ``renyi-lab``: the tour, the course, and a check of the installation."""

from renyi_lab.cli._app import app, main

__all__ = ["app", "main"]
