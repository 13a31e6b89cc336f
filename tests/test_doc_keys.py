"""Every key of the JSON is declared, and every declared key is on the pages, as it is declared now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from doc_keys import DOCS, ELSEWHERE, declared_classes, documents, listed, rows, undeclared, undeclared_in, with_keys
from in_process import gradcli

from gradcli.results.declared import data_of, key
from gradcli.results.envelope import Envelope, envelope
from gradcli.results.gates import GatesOfLayer
from gradcli.results.result import Result

PAGES = sorted(DOCS.glob("*.md"))
SMALL = ("-T", 6, "--hidden-size", 3, "--trials", 2, "--batch-size", 2)
ONE_LAYER = ("gates", "contributions", "jacobian", "paths", "simulate")
#: Specs that fill different keys: every kind of number that may be missing is there in one, and missing in another.
SPECS: dict[str, tuple[object, ...]] = {
    "lstm": ("lstm", *SMALL, "--clip", "norm=1", "--clip", "step_norm=0.1"),
    "two layers in float32": ("gru", *SMALL, "--set", "num_layers=2", "--set", "dtype=float32"),
    "loss at every step": ("rnn", *SMALL, "--set", "loss.at=every"),
    "vanishing": ("rnn", "-T", 60, "--hidden-size", 4, "--set", "init.W_hh=0.1"),
    "dead": ("rnn", *SMALL, "--set", "activation=relu", "--set", "init.b_h=-100"),
    "nonfinite": ("rnn", *SMALL, "--set", "activation=identity", "--set", "init.W_hh={identity: {gain: 1e200}}"),
    "no parameters": ("none.yaml", "-T", 6),
    "trained": (DOCS.parent / "examples" / "checkpoints" / "digits-lstm.safetensors", "-T", 6, "--trials", 1),
}
OTHERS: dict[str, tuple[object, ...]] = {
    "compare": ("compare", "lstm", "rnn", *SMALL),
    "compare trained": (
        "compare",
        *(DOCS.parent / "examples" / "checkpoints" / f"digits-lstm{name}.pt" for name in ("", "-untrained")),
        *("-T", 6, "--trials", 1),
    ),
    "inspect": ("inspect", DOCS.parent / "examples" / "checkpoints" / "digits-lstm.safetensors"),
    "inspect a flax file": ("inspect", Path(__file__).parent / "checkpoints" / "flax-linen-GRUCell.npz"),
    "cells": ("cells",),
    "one cell": ("cells", "lstm"),
    "program of a cell": ("cells", "lstm", "--program"),
    "examples": ("examples",),
    "check": ("check", "checked.yaml", "missing.yaml"),
}
FILES = {
    "none.yaml": "cell: {equations: 'h[t] = 0.5 * h[t-1] + x[t]'}\nhidden_size: 3\ninput_size: 3\ntrials: 1\n",
    "checked.yaml": "cell: rnn\nseq_len: 6\nhidden_size: 3\ntrials: 1\nexpect: {finite: true, horizon: '> 50'}\n",
}


def commands() -> Iterator[tuple[str, tuple[object, ...]]]:
    for command in ONE_LAYER:
        for name, arguments in SPECS.items():
            if "--clip" in arguments and command != "simulate":
                arguments = arguments[: arguments.index("--clip")]
            yield f"{command} {name}", (command, *arguments)
    yield from OTHERS.items()


COMMANDS = dict(commands())


def document(arguments: tuple[object, ...], folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return gradcli(*arguments, "--format", "json").report()


def kinds_of(found: dict[str, Any]) -> list[type[Result]]:
    return [kind for kind in documents() if kind.command == found["command"]]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_key_of_the_json_is_declared(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = document(COMMANDS[name], tmp_path, monkeypatch)
    wrong = {kind.__name__: undeclared_in(kind, found) for kind in kinds_of(found)}
    assert [] in wrong.values(), wrong


def test_every_document_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = {str(arguments[0]) for arguments in COMMANDS.values()}
    assert {kind.command for kind in documents()} == commands
    found = [document(COMMANDS[name], tmp_path, monkeypatch) for name in ("cells", "one cell")]
    for one, other in (found, found[::-1]):
        fitting = [kind for kind in kinds_of(one) if not undeclared_in(kind, one)]
        assert len(fitting) == 1
        assert undeclared_in(fitting[0], other)


def test_a_key_too_many_is_found_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = document(COMMANDS["gates lstm"], tmp_path, monkeypatch)
    run = found["runs"][0]
    for place in (found, run, run["verdict"]["horizon"], run["activations"]["f"], run["direct_routes"][0]):
        place["widest"] = 1.0
        assert len(undeclared_in(GatesOfLayer, found)) == 1
        del place["widest"]
        assert undeclared_in(GatesOfLayer, found) == []
    run["spectral_norms"]["W_hf"] = {"value": 1.0}
    assert len(undeclared_in(GatesOfLayer, found)) == 1
    del run["rates"]
    assert len(undeclared_in(GatesOfLayer, found)) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_lists_the_keys_as_they_are_declared(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert with_keys(text, page.name) == text, "to take over what is declared: python -m tests.doc_snippets"


def test_every_document_is_on_a_page() -> None:
    on_pages = {page.name: [declared_classes()[name] for name in listed(page)] for page in PAGES}
    everywhere = [kind for kinds in on_pages.values() for kind in kinds]
    for kind in (*documents(), Envelope):
        assert kind in everywhere, f"no page lists the keys of {kind.__name__}"
    for kind, link in ELSEWHERE.items():  # where the keys of a class with more of them may be
        page = link.partition("#")[0]
        assert any(issubclass(each, kind) for each in on_pages[page]), f"{page} does not list those of {kind.__name__}"


def test_a_change_of_what_a_key_is_makes_a_page_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    page = DOCS / "gates.md"
    text = page.read_text(encoding="utf-8")
    monkeypatch.setattr("doc_keys.rows", lambda kind, before="": [*rows(kind, before), ("widest", "a new number")])
    assert "| `widest` | a new number |" in with_keys(text, page.name)
    assert with_keys(text, page.name) != text


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A class of this test's own."""

    one: int = key("a number")
    other: float | None = key("may be left out", optional=True)


def test_the_classes_of_a_document_are_found_and_compared() -> None:
    assert {"GatesOfLayer", "Verdict", "RouteShare", "Envelope"} <= declared_classes().keys()
    assert list(undeclared(Pair, data_of(Pair(one=1, other=None)))) == []
    assert list(undeclared(Pair, {"one": 1, "other": 2.0})) == []
    assert list(undeclared(Pair, {"other": 2.0})) == [".one is missing"]
    assert json.dumps(envelope("gates")["command"]) == '"gates"'
