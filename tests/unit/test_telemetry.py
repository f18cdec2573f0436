"""Telemetry: the table says what is logged, lines carry the correlation id, and nothing heavy is loaded."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hive_bus.telemetry import (
    TELEMETRY,
    Signal,
    configure_logging,
    current_correlation,
    current_traceparent,
    get_logger,
    with_correlation,
)

ROOT = Path(__file__).parents[2]
PACKAGES = ("hive_core_db", "hive_bus", "agents", "dashboard")
LEVELS = {"debug", "info", "warning", "error", "exception"}
log = get_logger("hive_bus.sample")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Begin with logging as a program finds it, whatever tests before did; leave it as it was."""
    names = ("", *PACKAGES)
    levels = {name: logging.getLogger(name).level for name in names}
    handlers = list(logging.getLogger().handlers)
    for name in PACKAGES:
        logging.getLogger(name).setLevel(logging.NOTSET)
    yield
    logging.getLogger().handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def said_in(tree: ast.AST) -> Iterator[tuple[str, frozenset[str], int]]:
    """Every line that a module says through ``_log``: its name, its fields and where."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="_log"), attr=level), args=[ast.Constant(value=str(name))]
            ) if level in LEVELS:
                yield name, frozenset(word.arg or "**" for word in node.keywords), node.lineno
            case ast.Call(func=ast.Attribute(value=ast.Name(id="_log"), attr=level)) if level in LEVELS:
                yield "<not a literal>", frozenset(), node.lineno


def all_said() -> dict[str, set[frozenset[str]]]:
    """The names and fields of everything that the hive's packages say."""
    said: dict[str, set[frozenset[str]]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for name, fields, _ in said_in(ast.parse(path.read_text(encoding="utf-8"))):
                said.setdefault(name, set()).add(fields)
    return said


def test_the_table_is_what_the_code_says() -> None:
    """Every line that is said is in the table with exactly its fields, and nothing else is in the table."""
    table = {signal.name: {frozenset(name for name, _ in signal.fields)} for signal in TELEMETRY}
    assert all_said() == table


def test_names_in_the_table_are_unique_and_explained() -> None:
    """A name stands for one thing, and the table says when it is said."""
    assert len({signal.name for signal in TELEMETRY}) == len(TELEMETRY)
    assert all(signal.when and isinstance(signal, Signal) for signal in TELEMETRY)


def test_the_table_is_in_the_order_of_its_names() -> None:
    """A table is for looking things up."""
    assert [signal.name for signal in TELEMETRY] == sorted(signal.name for signal in TELEMETRY)


def test_a_line_that_is_not_a_literal_is_found() -> None:
    """A name put together at run time cannot be compared with the table, so it is reported."""
    found = list(said_in(ast.parse("_log.info(name, a=1)\n_log.info('x.y', b=2)")))
    assert found == [("<not a literal>", frozenset(), 1), ("x.y", frozenset({"b"}), 2)]


def test_json_lines_carry_fields_and_the_correlation_id() -> None:
    """A line is one JSON object with its name, fields, level, logger, UTC time and correlation id."""
    stream = io.StringIO()
    configure_logging(json=True, level="info", stream=stream)
    with with_correlation("run7"):
        log.info("sample.said", count=3)
    log.debug("sample.hidden")
    line = json.loads(stream.getvalue())
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "sample.said",
        "count": 3,
        "correlation_id": "run7",
        "level": "info",
        "logger": "hive_bus.sample",
    }


def test_an_exception_is_one_json_line_too() -> None:
    """The traceback is a field, so a line stays a line."""
    stream = io.StringIO()
    configure_logging(json=True, stream=stream)
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("sample.broke")
    assert "ValueError: boom" in json.loads(stream.getvalue())["exception"]


def test_text_lines_are_for_people_and_without_colours_on_a_pipe() -> None:
    """On a pipe there are no escape sequences."""
    stream = io.StringIO()
    configure_logging(json=False, level="DEBUG", stream=stream)
    log.warning("sample.said", count=3)
    assert "sample.said" in stream.getvalue()
    assert "count=3" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_configuring_twice_writes_once() -> None:
    """The second call replaces the first."""
    first, second = io.StringIO(), io.StringIO()
    configure_logging(json=True, stream=first)
    configure_logging(json=True, stream=second)
    log.error("sample.said")
    assert (first.getvalue(), second.getvalue().count("\n")) == ("", 1)


def test_lines_of_other_libraries_get_the_correlation_id() -> None:
    """A foreign warning inside a run is found by the run's id."""
    stream = io.StringIO()
    configure_logging(json=True, stream=stream)
    with with_correlation("run8"):
        logging.getLogger("somebody.else").warning("hello %s", "you")
        logging.getLogger("somebody.else").info("not shown")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["correlation_id"]) == ("hello you", "run8")


def test_an_unconfigured_program_sees_an_ordinary_log_record(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever embeds the bus gets standard log records, readable without structlog."""
    with caplog.at_level(logging.INFO), with_correlation("run9"):
        log.info("sample.said", path="a b")
    assert [record.getMessage() for record in caplog.records] == ["sample.said path='a b' correlation_id='run9'"]


async def test_the_correlation_id_follows_tasks_and_ends_with_its_block() -> None:
    """Tasks started inside a block inherit the id; blocks nest."""

    async def seen() -> str | None:
        return current_correlation()

    with with_correlation("outer"):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(seen())
        with with_correlation("inner"):
            assert await seen() == "inner"
        assert (task.result(), current_correlation()) == ("outer", "outer")
    assert current_correlation() is None


def test_traceparent_is_that_of_the_current_span() -> None:
    """The header is the one that OpenTelemetry's own propagator sends, and None outside of a span."""
    assert current_traceparent() is None
    with TracerProvider().get_tracer("test").start_as_current_span("work"):
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        assert current_traceparent() == carrier["traceparent"]


def test_neither_structlog_nor_opentelemetry_is_loaded() -> None:
    """Saying lines and asking for the trace context loads nothing."""
    script = (
        "import sys, hive_bus, hive_bus.telemetry as t; t.get_logger('x').error('a.b', c=1); "
        "print(t.current_traceparent(), sorted({'structlog', 'opentelemetry'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.split() == ["None", "[]"]
    assert "a.b c=1" in run.stderr
