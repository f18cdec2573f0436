"""No-op nodes of ``langgraph`` with its PostgreSQL checkpointer, as a child that measures when told.

``python -m benchmarks.peers.langgraph_steps URL``. Checkpoints are written while the next node runs (``durability="async"``,
its default); a checkpointer lets one statement through at a time, so there are several,
each with a connection of its own.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from importlib.metadata import version
from itertools import count
from typing import Any, TypedDict

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph

from benchmarks.children import serve

SAVERS = 4
LONGEST = 20.0
"""Seconds after which no more are started: its rate is known by then."""


class State(TypedDict):
    """What a graph carries."""

    count: int


async def noop(state: State) -> State:
    """Do next to nothing: a node must write something."""
    return {"count": state["count"] + 1}


def chain(saver: AsyncPostgresSaver, length: int) -> Any:
    """Nodes one after the other."""
    graph = StateGraph(State)
    names = [f"s{n}" for n in range(length)]
    for name in names:
        graph.add_node(name, noop)
    for before, after in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(before, after)
    return graph.compile(checkpointer=saver)


async def main() -> None:
    """Serve until standard input ends."""
    threads = count()
    async with AsyncExitStack() as stack:
        savers = [
            await stack.enter_async_context(AsyncPostgresSaver.from_conn_string(sys.argv[1])) for _ in range(SAVERS)
        ]
        await savers[0].setup()

        async def together(runs: int, length: int, durability: str = "async") -> float:
            """Nodes per second of many graphs at once; 20 seconds of them are enough."""
            graphs = [chain(saver, length) for saver in savers]
            begin = time.perf_counter()
            left, done = iter(range(runs)), 0

            async def worker(graph: Any) -> None:
                nonlocal done
                for _ in left:
                    if time.perf_counter() - begin > LONGEST:
                        return
                    thread = {"configurable": {"thread_id": f"t{next(threads)}"}}
                    await graph.ainvoke({"count": 0}, thread, durability=durability)
                    done += 1

            await asyncio.gather(*(worker(graphs[n % SAVERS]) for n in range(SAVERS * 4)))
            return done * length / (time.perf_counter() - begin)

        async def about() -> str:
            """What is measured."""
            return f"langgraph {version('langgraph')}, checkpoint-postgres {version('langgraph-checkpoint-postgres')}"

        await serve({"together": together, "about": about})


if __name__ == "__main__":
    asyncio.run(main())
