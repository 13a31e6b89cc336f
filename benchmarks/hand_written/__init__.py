"""BPTT written by hand for single cells: what the engine's compiled loops are measured against.

Written as a careful NumPy programmer would write them for one cell and one purpose, the norms of dL/ds_t at every
step: buffers and views made once, gates stacked, the input product hoisted, the coefficients of the backward step
computed for a block of steps outside of the loop. Plain numbers, which vanish where floats do.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.cases import Numbers
from benchmarks.hand_written.arrays import HandWritten
from benchmarks.hand_written.coupled_oscillator import CoupledOscillator
from benchmarks.hand_written.fastgrnn import FastGRNN
from benchmarks.hand_written.gru import GRU
from benchmarks.hand_written.indrnn import IndRNN
from benchmarks.hand_written.lstm import LSTM
from benchmarks.hand_written.mgu import MGU
from benchmarks.hand_written.rnn import RNN
from benchmarks.hand_written.rnn_lags import RNNLags

#: The loop of each cell, by the cell's name.
LOOPS: dict[str, Callable[[Numbers], HandWritten]] = {
    "lstm": LSTM,
    "gru": GRU,
    "rnn": RNN,
    "mgu": MGU,
    "indrnn": IndRNN,
    "rnn-lags": RNNLags,
    "coupled-oscillator": CoupledOscillator,
    "fastgrnn": FastGRNN,
}
