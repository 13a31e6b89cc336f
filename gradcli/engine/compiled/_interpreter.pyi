from typing import Any

from numpy import ndarray

_Array = ndarray[Any, Any]
_Operand = tuple[_Array, _Array, bool]

#: Names of operations, and of the levels of this processor, the best first.
OPERATIONS: tuple[str, ...]
LEVELS: tuple[str, ...]

class Program:
    def __new__(
        cls,
        number: str,
        calls: list[tuple[str, tuple[_Operand, ...], tuple[_Operand, ...], int, float]],
        level: str | None = None,
        lender: Program | None = None,
    ) -> Program: ...
    def run(self, first: int, count: int, reverse: bool, /) -> None: ...
    def pack(self) -> None: ...

def log2_norms(values: _Array, norms: _Array | None, largest: _Array | None, /) -> None: ...
