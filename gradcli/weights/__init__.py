"""Trained weights: checkpoints of other frameworks, read without those frameworks and without running anything in them.

A format's reader gives a `Checkpoint`: names, shapes and dtypes at once, numbers when they are asked for. The layouts
recognise in it the recurrent layers, linear heads and embeddings, in the terms of gradcli's own cells.
"""
