"""`python -m renyi_lab` does what `renyi-lab` does."""

from renyi_lab.cli import main

if __name__ == "__main__":
    main()
