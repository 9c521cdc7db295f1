"""``python -m renyi_lab`` is the command ``renyi-lab``."""

from renyi_lab.cli import main

if __name__ == "__main__":
    main()
