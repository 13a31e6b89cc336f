"""A second implementation of what gradcli computes: PyTorch autograd, slow and obvious, sharing no code with it."""
