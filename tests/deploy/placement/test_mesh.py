"""mksgn/deploy/placement/mesh: coordinates, hops and links, against messages followed one by one."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mksgn.deploy import compile_graph, run
from mksgn.deploy.placement.activity import Activity
from mksgn.deploy.placement.chip_file import Mesh
from mksgn.deploy.placement.chips import LOIHI1
from mksgn.deploy.placement.loads import core_loads
from mksgn.deploy.placement.mesh import coordinates, hops, hops_of_run
from mksgn.deploy.placement.place import place
from tests.support import graphs as net
from tests.support.placements import dense, tiny


def meshed(chip, columns, rows, cores_per_tile):
    mesh = Mesh(columns=columns, rows=rows, cores_per_tile=cores_per_tile, evidence="declared", source="none")
    return replace(chip, mesh=mesh, cores=columns * rows * cores_per_tile)


def test_cores_fill_the_tiles_like_a_snake():
    placement = place(dense(4, 10), meshed(tiny(1, 10**4), 3, 2, 2))
    assert placement.cores == 10
    assert coordinates(placement).tolist() == [
        [0, 0], [0, 0], [0, 1], [0, 1], [1, 1], [1, 1], [1, 0], [1, 0], [2, 0], [2, 0],
    ]  # fmt: skip


@pytest.mark.parametrize("chip", [replace(LOIHI1, mesh=None), meshed(replace(LOIHI1, neurons_per_core=20), 2, 1, 1)])
def test_there_are_no_coordinates_without_a_mesh_or_on_several_chips(chip):
    _, graph = net.quantised_student_like(np.random.default_rng(0))
    assert coordinates(place(compile_graph(graph, dt=net.DT), chip)) is None


def test_hops_and_links_of_a_student():
    rng = np.random.default_rng(0)
    _, graph = net.quantised_student_like(rng)
    program = compile_graph(graph, dt=net.DT)
    placement = place(program, meshed(replace(LOIHI1, neurons_per_core=20, synaptic_bits_per_core=8 * 400), 6, 5, 4))
    execution = run(program, net.analog_clips(rng, 2))
    loads = core_loads(placement, Activity(program, execution.spikes))
    found = hops(placement, loads.messages, loads.steps)
    at = coordinates(placement)
    crossed, links = Counter(), Counter()
    for message in loads.messages:
        for sample, step, s, r in np.argwhere(message.count):
            count = int(message.count[sample, step, s, r])
            (x, y), (to_x, to_y) = at[message.sender + s], at[message.receiver + r]
            when = (int(sample), (message.first + int(step)) % loads.steps)
            if (x, y) == (to_x, to_y):
                crossed["within"] += count
            while x != to_x:
                after = x + np.sign(to_x - x)
                links[when, (int(x), int(y)), (int(after), int(y))] += count
                crossed["east_west"] += count
                x = after
            while y != to_y:
                after = y + np.sign(to_y - y)
                links[when, (int(x), int(y)), (int(x), int(after))] += count
                crossed["north_south"] += count
                y = after
    assert (found.within_tile, found.east_west, found.north_south) == (
        crossed["within"], crossed["east_west"], crossed["north_south"],
    )  # fmt: skip
    assert min(crossed.values()) > 0
    most = Counter()
    for (when, *_), count in links.items():
        most[when] = max(most[when], count)
    assert found.busiest_link == sum(most.values()) / (2 * loads.steps)
    # a run whose samples are all counted: by neuron, and for product units by the messages that were counted
    per_neuron = {name: counts.per_neuron for name, counts in execution.counters.items()}
    coincidences = {name: counts.coincidences for name, counts in execution.counters.items()}
    whole = hops_of_run(placement, per_neuron, coincidences, loads)
    assert whole == {name: getattr(found, name) for name in whole}
    twice = hops_of_run(
        placement, {n: 2 * x for n, x in per_neuron.items()}, {n: 2 * x for n, x in coincidences.items()}, loads
    )
    assert twice == {name: 2 * count for name, count in whole.items()}
