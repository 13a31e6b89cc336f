"""How fast gradcli is, as ratios: `python -m benchmarks` from the root of a checkout. Not part of the package."""
