"""Where gradients are no derivatives, a result says so; a comparison says of which of its cells."""

from __future__ import annotations

from in_process import gradcli

SMALL = ("-T", 5, "--hidden-size", 3, "--input-size", 2, "--trials", 1)
STOPS = "what stop(...) holds passes no gradient, so that gradients are not the derivative there"
SPIKES = "a spike has no gradient: all that goes through spike(...) has that of its surrogate, atan with k = 2"


def notes(command: str, *arguments: object) -> list[str]:
    done = gradcli(command, *arguments, *SMALL, "--format", "json")
    assert done.code == 0, done.stderr
    report = done.report()
    found: list[str] = (report if command == "compare" else report["runs"][0])["notes"]
    return found


def test_a_rounding_with_a_gradient_passed_straight_through_is_told() -> None:
    assert notes("simulate", "skip-gru") == [STOPS]
    assert notes("simulate", "gru") == []


def test_spikes_whose_reset_passes_no_gradient_have_one_note_for_both() -> None:
    assert notes("simulate", "lif") == [f"{SPIKES}; {STOPS}"]
    kept = ("--set", """cell={equations: 'h[t] = spike(W @ x[t] + 0.9 * h[t-1], "atan", 2)', init: {"*": torch}}""")
    assert notes("simulate", "rnn", *kept) == [SPIKES]


def test_a_comparison_says_of_which_cells_a_note_is_and_says_it_once() -> None:
    found = notes("compare", "lif", "rlif", "skip-gru", "gru")
    assert found == [f"lif, rlif: {SPIKES}; {STOPS}", f"skip-gru: {STOPS}"]
