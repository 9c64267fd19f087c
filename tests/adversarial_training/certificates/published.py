"""Published networks and the images that they read, where the data are at hand."""

import gzip
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

DATA = Path(os.environ.get("NACRE_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


def mnist():
    """(images, labels, folder of weights), or None where a file is not here."""
    folder, weights = DATA / "images" / "mnist", DATA / "weights"
    if not (folder.is_dir() and weights.is_dir()):
        return None

    def numbers(name, header):
        with gzip.open(folder / f"t10k-{name}-ubyte.gz") as file:
            return torch.tensor(np.frombuffer(file.read(), np.uint8)[header:].copy())

    images = numbers("images-idx3", 16).reshape(-1, 1, 28, 28).float() / 255
    return images, numbers("labels-idx1", 8).long(), weights


def small(state):
    """The network "small" of Wong & Kolter 2018 with these weights."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    model.load_state_dict(state)
    return model.eval()
