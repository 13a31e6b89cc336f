"""Write digits.npz, from the copy of the data set that scikit-learn carries: python examples/data/make_digits.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

PICTURES = 500  # the first ones; all ten digits are about equally frequent among them
HERE = Path(__file__).parent


def main() -> None:
    digits = load_digits()
    rows = digits.images[:PICTURES].astype(np.uint8)
    labels = digits.target[:PICTURES].astype(np.uint8)
    np.savez_compressed(HERE / "digits.npz", rows=rows, pixels=rows.reshape(PICTURES, 64, 1), labels=labels)


if __name__ == "__main__":
    main()
