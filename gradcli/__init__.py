"""Gradient flow through recurrent cells: exact back-propagation through time for any cell given as equations."""

__version__ = "0.1.0"
