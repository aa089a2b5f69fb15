"""Figures and tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from evidence_rows import Estimate

NOT_RUN = "not run yet"

TITLES = {
    "fill": "fill",
    "extend_with_prompt": "extend with prompt",
    "extend_without_prompt": "extend without",
    "removal": "removal",
}
"""Short names of the tasks."""


def percent(one: Estimate | None) -> str:
    """ "+8.5 [5, 12.2]" in %, with the seeds' values in brackets if there are several."""
    if one is None:
        return NOT_RUN
    told = f"{_short(100 * one.value, True)} [{_short(100 * one.low)}, {_short(100 * one.high)}]"
    if len(one.seeds) > 1:
        told += f" ({', '.join(_short(100 * seed, True) for seed in one.seeds)})"
    return told


def thousandths(one: Estimate | None) -> str:
    """ "+0.025 [0.012, 0.038]"."""
    if one is None:
        return NOT_RUN
    return f"{one.value:+.3f} [{one.low:.3f}, {one.high:.3f}]".replace("-", "−")


def changed(one: Estimate | None) -> str:
    """ "+0.025"; in brackets if the interval has 0, bold if it is below 0."""
    if one is None:
        return NOT_RUN
    told = f"{one.value:+.3f}".replace("-", "−")
    if one.low <= 0 <= one.high:
        return f"({told})"
    return f"**{told}**" if one.value < 0 else told


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""

    def joined() -> Iterator[str]:
        for line in (head, ["---"] * len(head), *lines):
            yield "| " + " | ".join(line) + " |"

    return "\n".join(joined())


def _short(value: float, sign: bool = False) -> str:
    """One decimal, none for whole numbers, with a real minus."""
    told = (f"{value:+.1f}" if sign else f"{value:.1f}").removesuffix(".0")
    return told.replace("-", "−")
