"""One file for each format of checkpoints, and what they share: how bytes become tensors, and hostile ones do not."""
