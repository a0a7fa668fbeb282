"""mksgn/deploy/passes/loops: execution groups, and the order in which they are evaluated."""

from dataclasses import replace

import numpy as np

from mksgn.deploy.passes.ingest import ingest
from mksgn.deploy.passes.loops import join_loops
from mksgn.deploy.program.verify import groups_are_joined, sources_come_first
from tests.support.graphs import graph, inp, lif, linear, out, student_like
from tests.support.programs import recurrent_loop


def groups(program) -> list[tuple[str, str]]:
    return [(p.name, p.group) for p in program.populations]


def test_a_loop_is_one_group():
    program = join_loops(ingest(recurrent_loop()))
    assert groups(program) == [("x", "x"), ("a", "a"), ("b", "a"), ("c", "c")]
    assert {name: program.loops(name) for name in program.groups} == {"a": True, "c": False}


def test_a_population_in_a_loop_with_itself_is_a_group_by_itself():
    g = graph(
        {"x": inp(2), "d": linear(np.eye(2)), "l": lif(2), "back": linear(np.eye(2)), "y": out(2)},
        [("x", "d"), ("d", "l"), ("l", "back"), ("back", "l"), ("l", "y")],
    )
    program = join_loops(ingest(g))
    assert groups(program) == [("x", "x"), ("l", "l")]
    assert program.loops("l")


def test_a_program_without_loops_stays_as_it_is():
    before = ingest(student_like(np.random.default_rng(0)))
    after = join_loops(before)
    assert groups(after) == groups(before) == [(p.name, p.name) for p in before.populations]
    assert after.projections is before.projections


def test_groups_follow_what_feeds_them_from_any_order():
    """Members that another population separates come together, and c still follows the loop."""
    program = ingest(recurrent_loop())
    scattered = replace(program, populations=tuple(program[name] for name in ("x", "a", "c", "b")))
    joined = join_loops(scattered)
    assert [p.name for p in joined.populations] == ["x", "a", "b", "c"]
    assert not [*groups_are_joined(joined), *sources_come_first(joined)]
