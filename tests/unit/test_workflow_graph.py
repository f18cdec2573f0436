"""The task graph: cycles are found exactly when there are some, and the checks cost what they should."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agents.workflows.task_graph import check_graph, find_cycles
from agents.workflows.workflow import Step

_IDS = st.integers(0, 12).map(lambda number: f"s{number}")
_GRAPHS = st.dictionaries(_IDS, st.lists(_IDS, max_size=4, unique=True).map(tuple), max_size=13)


def _steps(graph: Mapping[str, tuple[str, ...]]) -> tuple[Step, ...]:
    return tuple(Step(id=name, run="true", needs=needs) for name, needs in graph.items())


@given(_GRAPHS)
def test_cycles_agree_with_the_standard_library(graph: dict[str, tuple[str, ...]]) -> None:
    """There is a cycle exactly when graphlib finds one, and each that is named is closed and real."""
    known = {name: tuple(need for need in needs if need in graph) for name, needs in graph.items()}
    try:
        graphlib.TopologicalSorter(known).prepare()
        cyclic = False
    except graphlib.CycleError:
        cyclic = True
    cycles = find_cycles(graph)
    assert bool(cycles) is cyclic
    for cycle in cycles:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(need in graph[name] for name, need in pairwise(cycle))


@given(_GRAPHS)
def test_a_graph_is_accepted_exactly_when_it_can_be_run(graph: dict[str, tuple[str, ...]]) -> None:
    """No problem means: every need exists, and there is an order in which every step comes after its needs."""
    unknown = any(need not in graph for needs in graph.values() for need in needs)
    problems = check_graph(_steps(graph))
    assert bool(problems) is (unknown or bool(find_cycles(graph)))


def test_breaking_the_named_need_breaks_the_cycle() -> None:
    """The problem of a cycle stands at one of its needs, and names the whole circle."""
    graph = {"a": ("c",), "b": ("a",), "c": ("b",), "d": ("a",)}
    [problem] = check_graph(_steps(graph))
    assert problem.reason == "the steps wait for each other: a needs c needs b needs a"
    assert (problem.field, problem.value) == ("steps[1].needs[0]", "a")
    assert check_graph(_steps({**graph, "b": ()})) == ()


def test_a_chain_of_thousands_is_no_problem() -> None:
    """Depth costs no recursion, whichever end the walk begins at."""
    names = [f"s{number}" for number in range(10_000)]
    chain = {name: (names[number - 1],) if number else () for number, name in enumerate(names)}
    assert find_cycles(chain) == ()
    assert find_cycles(dict(reversed(list(chain.items())))) == ()
    chain["s0"] = ("s9999",)
    [cycle] = find_cycles(chain)
    assert len(cycle) == 10_001
    [problem] = check_graph(_steps(chain))
    assert problem.reason.endswith("... and 9981 more needs s0")


def test_references_may_reach_through_needs() -> None:
    """A step may read what its needs need; it may not read what happens to stand above it in the file."""
    a, b = Step(id="a", run="x"), Step(id="b", run="x", needs=("a",))
    c = Step(id="c", run="echo {{ steps.a.output }}", needs=("b",), when="failed('a') or always()")
    assert check_graph((a, b, c)) == ()
    d = Step(id="d", run="echo {{ steps.a.output }}", when="failed('b')")
    assert [(problem.field, problem.suggestion) for problem in check_graph((a, b, d))] == [
        ("steps[2].when", "add b to the needs of d"),
        ("steps[2].run", "add a to the needs of d"),
    ]
