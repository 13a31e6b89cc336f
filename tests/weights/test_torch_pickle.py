"""Pickles that no `torch.save` has written: nothing of them is called, and nothing grows with what they promise."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_files import SMALL, assert_same, everything, ignored, opened, refusal, zipped
from torch_pickles import (
    STORAGE,
    checkpoint,
    dictionary,
    named,
    number,
    numbers,
    state,
    storage,
    tensor,
    text,
)

from gradcli.errors import ExitCode
from gradcli.weights.checkpoint import Checkpoint
from gradcli.weights.readers import torch_pickle

SIX = np.arange(6, dtype="f4")
TINY_DICT = dictionary(a=number(1))


def test_a_hand_made_checkpoint_is_read(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.pt", state(w=tensor(), t=tensor(numbers(3, 2), numbers(1, 3)), n=number(3)))
    found = everything(path)
    assert_same(found["w"], SIX.reshape(2, 3))
    assert_same(found["t"], SIX.reshape(2, 3).T)
    assert ignored(path) == {"n": "a number"}


@pytest.mark.parametrize("order", [b"little", b"big", None])
def test_either_byte_order_is_read(order: bytes | None, tmp_path: Path) -> None:
    swapped = {"0": SIX.astype(">f4").tobytes()} if order == b"big" else None
    found = everything(checkpoint(tmp_path / "x.pt", state(w=tensor()), swapped, order))
    assert_same(found["w"], SIX.reshape(2, 3))


def test_the_pairs_of_old_ordered_dicts_are_read(tmp_path: Path) -> None:
    ordered = named("collections", "OrderedDict") + b"(](" + text("w") + tensor() + b"\x86" + b"etR"
    assert list(everything(checkpoint(tmp_path / "x.pt", b"\x80\x02" + ordered + b"."))) == ["w"]


def test_the_state_of_a_dict_is_left_out(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.pt", b"\x80\x02" + dictionary(w=tensor()) + dictionary(_metadata=TINY_DICT) + b"b.")
    assert list(everything(path)) == ["w"]


class Canary:
    """What a pickle of it would do: make a folder."""

    def __init__(self, path: Path, how: str) -> None:
        self.path, self.how = path, how

    def __reduce__(self) -> Any:
        if self.how == "os":
            return os.mkdir, (str(self.path),)
        if self.how == "eval":
            return eval, (f"__import__('os').mkdir({str(self.path)!r})",)
        return exec, (f"import os; os.mkdir({str(self.path)!r})",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("how", ["os", "eval", "exec"])
def test_nothing_is_called(how: str, protocol: int, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    payload = pickle.dumps({"w": Canary(canary, how)}, protocol)
    message = refusal(checkpoint(tmp_path / "x.pt", payload))
    expected = {"os": "posix.mkdir", "eval": ".eval", "exec": ".exec"}[how] if os.name == "posix" else "."
    assert expected in message
    assert "gradcli runs nothing in a file; save the weights alone" in message
    assert not canary.exists()
    pickle.loads(payload)
    assert canary.exists()  # the payload is one


@pytest.mark.parametrize(
    ("module", "name"),
    [("builtins", "getattr"), ("builtins", "__import__"), ("os", "system"), ("torch", "load"), ("numpy", "load"),
     ("torch._utils", "os"), ("collections", "OrderedDict.fromkeys"), ("torch", "FloatStorage.__class__"),
     ("functools", "partial"), ("__main__", "Net"), ("torch.storage", "_load_from_bytes"), ("", "")],
)  # fmt: skip
def test_only_the_names_of_a_state_dict_may_be_mentioned(module: str, name: str, tmp_path: Path) -> None:
    message = refusal(checkpoint(tmp_path / "x.pt", state(w=named(module, name))))
    assert f"besides tensors it holds {module}.{name}, as pickles of whole models do" in message
    stacked = b"\x80\x04" + text(module) + text(name) + b"\x93."
    assert f"it holds {module}.{name}, as" in refusal(checkpoint(tmp_path / "x.pt", stacked))


@pytest.mark.parametrize("name", ["\x1b[2J", "a" * 300])
def test_a_name_is_shown_on_one_line(name: str, tmp_path: Path) -> None:
    refusal(checkpoint(tmp_path / "x.pt", state(w=named("m", name))))


FLOAT = named("torch", "FloatStorage")
REBUILD = named("torch._utils", "_rebuild_tensor_v2")
PARAMETER = named("torch._utils", "_rebuild_parameter")
FROM_TYPE = named("torch._tensor", "_rebuild_from_type_v2")
ORDERED = named("collections", "OrderedDict")

LIES: dict[str, tuple[bytes, str]] = {
    "stride 0": (tensor(numbers(10**13), numbers(0)), "has more entries than its storage of 6 numbers"),
    "stride 0, twice": (tensor(numbers(3, 3), numbers(0, 0)), "has more entries than its storage of 6 numbers"),
    "a window that slides": (tensor(numbers(5, 2), numbers(1, 1)), "has more entries than its storage of 6 numbers"),
    "beyond the storage": (tensor(numbers(2, 4), numbers(4, 1)), "reaches beyond its storage of 6 numbers"),
    "an offset beyond it": (tensor(offset=number(1)), "reaches beyond its storage of 6 numbers"),
    "a stride beyond it": (tensor(numbers(2), numbers(6)), "reaches beyond its storage of 6 numbers"),
    "empty and beyond it": (tensor(numbers(0), numbers(1), number(7)), "reaches beyond its storage of 6 numbers"),
    "a huge empty shape": (tensor(numbers(0, 2**61), numbers(1, 1)), "a shape that no tensor has"),
    "a negative offset": (tensor(offset=number(-1)), "an impossible offset, shape or stride"),
    "a negative stride": (tensor(strides=numbers(-3, 1)), "an impossible offset, shape or stride"),
    "a negative length": (tensor(numbers(-2, 3)), "an impossible offset, shape or stride"),
    "a length beyond 64 bits": (tensor(numbers(2**70, 3)), "an impossible offset, shape or stride"),
    "a length that is true": (tensor(b"(\x88K\x03t"), "an impossible offset, shape or stride"),
    "a list as shape": (tensor(b"](K\x02K\x03e"), "an impossible offset, shape or stride"),
    "other strides than lengths": (tensor(strides=numbers(1)), "an impossible offset, shape or stride"),
    "too many dimensions": (tensor(numbers(*[1] * 40), numbers(*[1] * 40)), "an impossible offset, shape or stride"),
    "more numbers than bytes": (tensor(of=storage(count=7)), "a tensor's storage declares 28 bytes and has 24"),
    "2^61 numbers": (tensor(of=storage(count=2**61)), "a tensor's storage declares 9,223,372,036,854,775,808 bytes"),
    "-6 numbers": (tensor(of=storage(count=-6)), "a storage that is none"),
    "another type": (tensor(of=storage(kind=named("torch", "DoubleStorage"))), "declares 48 bytes and has 24"),
    "no type": (tensor(of=storage(kind=ORDERED)), "it has a storage of collections.OrderedDict"),
    "a type of text": (tensor(of=storage(kind=text("FloatStorage"))), "a storage that is none"),
    "another key": (tensor(of=storage("1")), "the numbers of a tensor are missing"),
    "a key of dots": (tensor(of=storage("../data.pkl")), "the numbers of a tensor are missing"),
    "no storage": (tensor(of=number(1)), "it has a tensor without a storage"),
    "a storage of four": (b"(" + text("storage") + FLOAT + text("0") + text("cpu") + b"tQ", "that is not a storage"),
    "another reference": (text("module") + b"Q", "it refers to something that is not a storage"),
    "a tensor of nothing": (REBUILD + b")R", "it has a tensor that is none"),
    "a tensor of too much": (REBUILD + numbers(*range(9)) + b"R", "it has a tensor that is none"),
    "a parameter of nothing": (PARAMETER + b")R", "it has a parameter that is none"),
    "a parameter of a number": (PARAMETER + numbers(1) + b"R", "it has a parameter that is none"),
    "a type of nothing": (FROM_TYPE + b")R", "it has a tensor that is none"),
    "a function that is a list": (FROM_TYPE + b"(]]])tR", "it has a tensor that is none"),
    "a list of no pairs": (ORDERED + b"(](K\x01etR", "it has an OrderedDict that is none"),
    "a called storage": (FLOAT + b")R", "it calls torch.FloatStorage, which is not a function"),
    "a called text": (text("os.system") + b")R", "it calls something that is not a function"),
    "a called tensor": (tensor() + b")R", "it calls something that is not a function"),
    "arguments of a list": (ORDERED + b"]R", "it calls something that is not a function"),
    "the state of a tensor": (tensor() + TINY_DICT + b"b", "it sets the state of something that has none"),
    "the state of a function": (REBUILD + TINY_DICT + b"b", "it sets the state of something that has none"),
    "the state of a type": (FLOAT + TINY_DICT + b"b", "it sets the state of something that has none"),
    "an entry of a list": (b"]" + text("a") + number(1) + b"s", "sets entries of something that is not a dict"),
    "a key without a value": (b"}(" + text("a") + b"u", "it sets entries of something that is not a dict"),
    "a key twice": (b"}(" + 2 * (text("a") + number(1)) + b"u", "it has two entries of one name"),
    "an item of a dict": (b"}" + number(1) + b"a", "it appends to something that is not a list"),
    "an item of a function": (REBUILD + b"(e", "it appends to something that is not a list"),
    "an item of a list as of a set": (b"](\x90", "it adds to something that is not a set"),
    "an old instruction": (b"I1\n", "it has an instruction that torch.save does not write"),
    "an old call": (b"(S'true'\nios\nsystem\n", "it has an instruction that torch.save does not write"),
    "an extension": (b"\x82\x01", "it has an instruction that torch.save does not write"),
    "a text of 2^40 bytes": (b"\x8d" + struct.pack("<Q", 2**40), "it ends before the text that it promises"),
    "a text of 2^63 bytes": (b"\x8d" + struct.pack("<Q", 2**63), "it ends before the text that it promises"),
    "bytes of 2^32": (b"B\xff\xff\xff\xff", "it ends before the text that it promises"),
    "an array of 2^40": (b"\x96" + struct.pack("<Q", 2**40), "it ends before the text that it promises"),
    "a text of -1 bytes": (b"T" + struct.pack("<i", -1), "it ends before the text that it promises"),
    "a number of -1 bytes": (b"\x8b" + struct.pack("<i", -1), "it ends before the text that it promises"),
    "a number of 2^31 bytes": (b"\x8b" + struct.pack("<i", 2**31 - 1), "an integer of too many digits"),
    "a name without an end": (b"c" + b"a" * 3000, "it has a name without an end"),
    "a name that is a number": (number(1) + number(2) + b"\x93", "it has a name that is not a text"),
    "place 2^31 of the memo": (b"j\xff\xff\xff\x7f", "its pickle is damaged"),
    "no mark": (b"t", "its pickle is damaged"),
    "an empty stack": (b"0000R", "its pickle is damaged"),
    "no UTF-8": (b"X\x01\x00\x00\x00\xff", "its pickle is damaged"),
    "another protocol": (b"\x80\x07", "it is not of protocols 2 to 5"),
}  # fmt: skip


@pytest.mark.parametrize("case", LIES)
def test_lies_are_refused(case: str, tmp_path: Path) -> None:
    value, message = LIES[case]
    assert message in refusal(checkpoint(tmp_path / "x.pt", state(w=value)))


def test_a_place_of_the_memo_takes_no_room(tmp_path: Path) -> None:
    """CPython's own unpickler makes a table up to the largest place: 32 GB here."""
    far = struct.pack("<I", 2**32 - 1)
    path = checkpoint(tmp_path / "x.pt", state(w=tensor() + b"r" + far + b"0j" + far))
    assert_same(everything(path)["w"], SIX.reshape(2, 3))


def test_tuples_nested_without_end_are_survived(tmp_path: Path) -> None:
    """A hash, a comparison or a printed form of them would overflow the stack."""
    deep = b")" + b"\x85" * 100_000
    path = checkpoint(tmp_path / "x.pt", state(w=tensor(), deep=deep))
    assert ignored(path) == {"deep": "a tuple of 1 entries"}
    as_key = b"}" + deep + number(1) + b"s"
    assert ignored(checkpoint(path, state(w=tensor(), a=as_key))) == {"a": "a dict of 1 entries without a tensor"}
    for value in (FROM_TYPE + b"(" + deep * 4 + b"tR", deep + b")R", deep + b"Q", REBUILD + deep + b"R"):
        assert "its pickle is not one of a state dict" in refusal(checkpoint(path, state(w=value)), memory=100 << 20)


def test_a_dict_in_itself_is_refused(tmp_path: Path) -> None:
    loop = b"\x80\x02}q\x01" + text("w") + tensor() + b"s" + text("self") + b"h\x01s."
    assert "its dicts nest deeper than 32 levels" in refusal(checkpoint(tmp_path / "x.pt", loop))


def laughs(levels: int, leaf: bytes) -> bytes:
    """Dicts that hold each other twice: 2^levels of them to walk, of some bytes."""
    value = leaf
    for _ in range(levels):
        value = b"}" + text("a") + value + b"q\x01s" + text("b") + b"h\x01s"
    return b"\x80\x02" + value + b"."


def test_dicts_that_repeat_each_other_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradcli.weights.readers.torch_state.MAX_TENSORS", 1000)
    path = checkpoint(tmp_path / "x.pt", laughs(30, tensor()))
    assert "it holds more tensors than any checkpoint has" in refusal(path, ExitCode.RESOURCE)


def test_dicts_without_a_tensor_are_not_walked(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.pt", laughs(30, TINY_DICT))
    assert set(ignored(path)) == {"a", "b"}


def test_two_tensors_of_one_joined_name_are_refused(tmp_path: Path) -> None:
    pairs = b"\x80\x02}" + text("a") + dictionary(b=tensor()) + b"s" + text("a.b") + tensor() + b"s."
    assert "two tensors have the name a.b" in refusal(checkpoint(tmp_path / "x.pt", pairs))


def test_a_name_that_cannot_be_printed_is_refused(tmp_path: Path) -> None:
    for name in ("\x1b[2J", "a\nb", "a" * 1001):
        path = checkpoint(tmp_path / "x.pt", b"\x80\x02}" + text(name) + tensor() + b"s.")
        assert "a tensor's name is too long or cannot be printed" in refusal(path)


def test_long_integers_as_keys_are_not_hashed(tmp_path: Path) -> None:
    """All of these have one hash, and a dict of them takes quadratic time."""
    modulus = 2**61 - 1
    items = b"".join(number(place * modulus) + b"N" for place in range(1, 50_000))
    path = checkpoint(tmp_path / "x.pt", state(w=tensor(), numbers=b"}(" + items + b"u"))
    assert ignored(path) == {"numbers": "a dict of 49,999 entries without a tensor"}


def test_a_pickle_of_too_many_instructions_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_pickle, "MAX_INSTRUCTIONS", 1000)
    path = checkpoint(tmp_path / "x.pt", b"\x80\x02" + b"]" * 1000 + b".")
    assert "its pickle has more than 1,000 instructions" in refusal(path, ExitCode.RESOURCE)


def test_a_pickle_beyond_reason_is_refused_unread(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.pt", bytes(torch_pickle.MAX_PICKLE + 1))
    assert "its pickle takes 33,554,433 bytes; at most 33,554,432" in refusal(path, ExitCode.RESOURCE, SMALL)


def test_what_is_no_dict_is_refused(tmp_path: Path) -> None:
    for value in (b"N", b"]", number(1), text("a"), REBUILD):
        message = refusal(checkpoint(tmp_path / "x.pt", b"\x80\x02" + value + b"."))
        assert "expected a dict of tensors and found something else; save it with" in message
    assert "it is not of protocol 2 or later" in refusal(checkpoint(tmp_path / "x.pt", b"(dp0\n."))
    assert "it is not of protocol 2 or later" in refusal(checkpoint(tmp_path / "x.pt", b""))


def test_another_byte_order_is_refused(tmp_path: Path) -> None:
    message = refusal(checkpoint(tmp_path / "x.pt", state(w=tensor()), order=b"middle"))
    assert "its byte order is neither little nor big" in message


def test_files_that_are_no_checkpoint_are_told_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    for content, message in {
        b"": "not a zip file, as torch.save writes",
        b"hello": "not a zip file, as torch.save writes",
        pickle.dumps({"a": 1}): "a bare pickle, not what torch.save writes; save the weights with torch.save(",
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "written by PyTorch before 1.6, or in its old format",
    }.items():
        path.write_bytes(content)
        assert message in refusal(path)
    assert "there is no data.pkl in it" in refusal(zipped(path, {"a.txt": b"hello"}))
    assert "there is no data.pkl in it" in refusal(zipped(path, {"a/data.pkl": b"", "b/data.pkl": b""}))


def test_memory_that_does_not_suffice_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint(tmp_path / "x.pt", state(w=tensor()), {"0": STORAGE})

    def full(checkpoint: Checkpoint, tensor: Any) -> Any:
        raise MemoryError

    with opened(path) as checkpoint_read:
        monkeypatch.setattr(type(checkpoint_read), "_read", full)
        with pytest.raises(torch_pickle.ResourceError, match="the tensor w takes 24 bytes, more than there is"):
            checkpoint_read.read("w")
