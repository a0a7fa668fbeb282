"""Draw docs/front.svg from the table of docs/results.md: python -m scripts.front_picture docs/results.md docs/front.svg

Each row of "Fixed point" is a network: the mean of its seeds at 8 bits, and their range. The line is the Pareto front of
the means. tests/test_front.py compares the picture with the table.
"""

import math
import re
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import mean

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 470, 62, 24, 46, 56  # of the picture, and its margins
TICKS_X = (10, 20, 30, 50, 100, 200)  # million synaptic operations, on a logarithmic axis that begins there


@dataclass(frozen=True)
class Network:
    """A row: its name, which ends at a colon, top-1 in % and million synaptic operations per clip, seed by seed."""

    name: str
    top1: tuple[float, ...]
    syn_ops: tuple[float, ...]

    @property
    def at(self) -> tuple[float, float]:
        return mean(self.syn_ops), mean(self.top1)


def networks(page: str) -> list[Network]:
    """Read the first table under "Fixed point" of docs/results.md."""
    table = page.partition("\n## Fixed point\n")[2].partition("\n|")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return [
        Network(name.replace("`", "").partition(":")[0], _numbers(emulator), _numbers(syn_ops))
        for name, _, _, emulator, syn_ops in rows
    ]


def front(points: list[Network]) -> list[Network]:
    """Return the networks more accurate than all that take no more operations, by increasing operations."""
    best: list[Network] = []
    for network in sorted(points, key=lambda n: (n.at[0], -n.at[1])):
        if not best or network.at[1] > best[-1].at[1]:
            best.append(network)
    return best


def picture(points: list[Network]) -> str:
    """Return the text of docs/front.svg."""
    low = math.floor(min(min(n.top1) for n in points))
    high = math.ceil(max(max(n.top1) for n in points))

    def x(syn_ops: float) -> float:
        share = math.log(syn_ops / TICKS_X[0]) / math.log(TICKS_X[-1] * 1.5 / TICKS_X[0])
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(top1: float) -> float:
        return HEIGHT - BOTTOM - (top1 - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="14">Accuracy of the 8-bit network and its synaptic operations</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 14}" text-anchor="end">million synaptic operations per clip</text>',
        f'<text x="{LEFT}" y="{TOP - 6}" fill="#555">top-1, %; mean and range of the seeds</text>',
    ]
    for top1 in range(low, high + 1):
        lines.append(f'<path d="M{LEFT} {y(top1):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y(top1) + 4:.1f}" text-anchor="end">{top1}</text>')
    for syn_ops in TICKS_X:
        lines.append(f'<path d="M{x(syn_ops):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        lines.append(f'<text x="{x(syn_ops):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{syn_ops}</text>')
    best = front(points)
    steps = "".join(f"H{x(n.at[0]):.1f}V{y(n.at[1]):.1f}" for n in best[1:])
    first = f"M{x(best[0].at[0]):.1f} {y(best[0].at[1]):.1f}"
    lines.append(f'<path d="{first}{steps}" fill="none" stroke="#222" stroke-width="1.5"/>')
    places = _places([(network.name, x(network.at[0]), y(network.at[1])) for network in points])
    for network, (at, height) in zip(points, places, strict=True):
        colour = "#b3261e" if network in best else "#555"
        halo = 'stroke="white" stroke-width="4" paint-order="stroke"'
        lines.append(f'<text x="{at:.1f}" y="{height:.1f}" fill="{colour}" {halo}>{escape(network.name)}</text>')
    for network in points:
        across, up = (x(network.at[0]), y(network.at[1]))
        colour = "#b3261e" if network in best else "#777"
        whisker = f"M{across:.1f} {y(max(network.top1)):.1f}V{y(min(network.top1)):.1f}"
        lines.append(f'<path d="{whisker}" stroke="{colour}" opacity="0.5"/>')
        lines.append(f'<circle cx="{across:.1f}" cy="{up:.1f}" r="4.5" fill="{colour}"/>')
    return "\n".join((*lines, "</svg>\n"))


def _places(points: list[tuple[str, float, float]]) -> list[tuple[float, float]]:
    """Return where each label begins: right of its point, or left of it near the margin, at a free height."""
    taken, places = list[tuple[float, float, float]](), []
    for name, across, up in points:
        long = 6.4 * len(name)
        at = across + 8 if across + 8 + long < WIDTH - RIGHT else across - 8 - long
        heights = [up + shift for shift in (-5, 16, -18, 29, -31, 42, 55, 68)]
        free = (h for h in heights if all(at > b or at + long < a or abs(h - other) > 12 for a, b, other in taken))
        height = next(free, heights[0])
        taken.append((at, at + long, height))
        places.append((at, height))
    return places


def _numbers(cell: str) -> tuple[float, ...]:
    return tuple(float(number) for number in re.findall(r"\d+(?:\.\d+)?", cell))


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_text(picture(networks(source.read_text(encoding="utf-8"))), encoding="utf-8")
