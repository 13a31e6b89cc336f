"""The contestants: what PyTorch, JAX and bare matrix products need for the same numbers."""
