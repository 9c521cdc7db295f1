"""Train the networks that notebook 06 certifies, and write ``notebooks/certificate_networks.npz``.

    python tests/tools/certificate_networks.py

The settings are the defaults of `renyi_lab.bounds.certify`: weight noise 0.05, 100 epochs, a quarter as many for the
network that moves on. Takes three minutes on one core. Trained again, the networks differ in their digits, and with
them every number of the notebook.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch.utils.data import TensorDataset

import renyi_lab as rl
from renyi_lab.bounds._noisy_training import train_posterior, train_prior
from renyi_lab.course._certificate_networks import CERTIFICATE_FILE, DATA_SEED, NUM_PRIOR_SAMPLES

FILE = Path(__file__).resolve().parents[2] / "notebooks" / CERTIFICATE_FILE
NOISE, EPOCHS, LR, BATCH_SIZE, PENALTY, SEED = 0.05, 100, 0.1, 128, 1.0, 0


def main(arguments: list[str] | None = None) -> None:
    """Train and store the three networks, and print their errors."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=FILE, help="file to write (%(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of the first two trainings (%(default)s)")
    options = parser.parse_args(arguments)
    train_set, test_set = rl.datasets.mnist1d(seed=DATA_SEED)
    x, y = train_set.tensors
    for_prior = TensorDataset(x[:NUM_PRIOR_SAMPLES], y[:NUM_PRIOR_SAMPLES])
    for_bound = TensorDataset(x[NUM_PRIOR_SAMPLES:], y[NUM_PRIOR_SAMPLES:])
    settings: dict[str, Any] = {"batch_size": BATCH_SIZE, "progress": None}
    networks = {name: rl.models.cnn1d(seed=0) for name in ("whole", "prior")}
    train_prior(networks["whole"], train_set, NOISE, options.epochs, SEED, lr=LR, **settings)
    train_prior(networks["prior"], for_prior, NOISE, options.epochs, SEED, lr=LR, **settings)
    epochs = max(1, options.epochs // 4)
    networks["moved"] = train_posterior(
        networks["prior"], for_bound, len(for_bound), NOISE, PENALTY, epochs, SEED + 3, lr=LR / 10, **settings
    )
    for name, network in networks.items():
        errors = [1 - rl.evaluate(network, data).accuracy for data in (for_prior, for_bound, test_set)]
        print(name, "errors: first 3,000 {:.3f}, last 1,000 {:.3f}, test {:.3f}".format(*errors))
    print(rl.course.save_certificate_networks(networks, options.out))


if __name__ == "__main__":
    main()
