"""benchmarks/scaling.py: fitted exponents, and rows that grow faster than the maths allows."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import scaling


def test_a_power_is_found_and_one_above_what_is_allowed_is_named(capsys):
    square = scaling.Sweep("attention", "tokens", 2, {n: 3.0 * n**2 for n in (16, 64, 256)})
    shared = scaling.Sweep("judge", "dimensions", 1, {n: 100.0 + n for n in (1, 2, 4)})
    wrong = scaling.Sweep("linear layers", "tokens", 1, {n: n + 0.1 * n**2 for n in (16, 64)})
    assert square.exponent == pytest.approx(2.0) and 0.0 < shared.exponent < 0.1
    (failed,) = scaling.report("FLOP", 1.0, (square, shared, wrong), scaling.COUNTED)
    assert failed.startswith("linear layers grows with the power 1.") and "of the tokens" in failed
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_operations_of_the_mini_editor_grow_as_the_maths_says():
    passes = scaling.Passes(scaling.MINI / "editor", scaling.MINI / "judge")

    def sweep(program, points):
        return scaling.Sweep(
            "", "", 0, {n: program(*one).operations() for n, one in points.items()}
        )

    sides = {passes.tokens(side): (side, 0, 1) for side in (64, 128, 256)}
    assert sweep(passes.attention, sides).exponent == pytest.approx(2.0, abs=1e-6)
    batches = {batch: (64, 12, batch) for batch in (1, 4)}
    assert sweep(passes.velocity, batches).exponent == pytest.approx(1.0, abs=1e-6)
    part, whole = (one(64, 12, 1).operations() for one in (passes.attention, passes.velocity))
    assert 0.0 < part < 0.5 * whole
