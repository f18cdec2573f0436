"""Two runs beside each other: what is alike, what is not, and that nothing differs from itself."""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.cli.diff import lines
from dashboard.cli.text import plain
from dashboard.views import Comparison, Pair, compare
from dashboard.views.comparison import effects
from hive_bus import Record
from tests.scenario.test_random_runs import a_random_run
from tests.support.story import RUN, Story, a_drone, two_steps

OTHER = "9p2x000000"


def _compare(first: Story, second: Story) -> Comparison:
    return compare(first.run, first.records, second.run, second.records)


def _fates(comparison: Comparison) -> list[tuple[str, str]]:
    return [(pair.fate, pair.either.label) for pair in comparison.pairs]


def _asks(story: Story, *calls: tuple[str, str, str]) -> Story:
    """A drone's session: of each call what it asks (its key), what comes of it, and what it costs."""
    story.tell("workflow.requested", 0, goal="g", workspace={"path": "/src"})
    story.tell("task.created", 0, task_id="fix", name="fix", spec={"prompt": "p"})
    home = "drone/fix.1"
    for turn, (key, said, cost) in enumerate(calls, 1):
        asked: dict[str, Any] = {"role": "drone", "turn": turn, "conversation": "drone", "task_id": "fix"}
        call = story.tell("model.requested", turn, stream=home, effect_key=key, **asked)
        story.tell("model.started", turn, cause=call, stream=home, attempt=1)
        message = {"role": "assistant", "content": [{"type": "text", "text": said}]}
        story.tell("model.responded", turn + 0.5, cause=call, stream=home, message=message, cost=cost, ttft=turn / 3)
    return story


def test_effects_are_aligned_by_what_was_asked() -> None:
    """The same question with the same answer is alike, with another answer it changed; so did another question at the same place."""
    a = _asks(Story(), ("k1", "look", "1"), ("k2", "write", "1"), ("k3", "done", "1"))
    b = _asks(Story(OTHER), ("k1", "look", "2"), ("k2", "wait", "1"), ("x3", "done", "1"), ("x4", "more", "1"))
    comparison = _compare(a, b)
    assert [(pair.fate, pair.asked) for pair in comparison.pairs] == [
        ("reused", False),
        ("changed", False),
        ("changed", True),
        ("new", False),
    ]
    assert not comparison.empty
    back = _compare(b, a)
    assert [pair.fate for pair in back.pairs] == ["reused", "changed", "changed", "lost"]
    assert comparison.as_dict()["effects"] == {"reused": 1, "changed": 2, "new": 1, "lost": 0}
    assert [run.cost.dollars for run in (comparison.a, comparison.b)] == [Decimal(3), Decimal(5)]


def test_the_same_question_twice_has_two_answers() -> None:
    """The n-th call with a key belongs to the n-th of the other run: a tool that was run before and after a fix."""
    a = _asks(Story(), ("k", "red", "1"), ("k", "green", "1"))
    b = _asks(Story(OTHER), ("k", "red", "1"), ("k", "green", "1"))
    assert _compare(a, b).empty
    c = _asks(Story(OTHER), ("k", "red", "1"), ("k", "red", "1"))
    assert [pair.fate for pair in _compare(a, c).pairs] == ["reused", "changed"]


def _writes(story: Story, letter: str, *, content: str = "1", seconds: float = 0.1) -> Story:
    """A drone writes, runs a command and is reviewed; ``letter`` makes its commits others than those of another run."""
    story.tell("workflow.requested", 0, goal="g", workspace={"path": "/src", "base": "0" * 40})
    story.tell("task.created", 0, task_id="fix", name="fix", spec={"prompt": "p"})
    left = letter * 40
    place = {"path": "/src", "base": "0" * 40}
    home = "drone/fix.1"

    def use(name: str, key: str, given: dict[str, Any], where: dict[str, Any], stream: str, **told: Any) -> None:
        call = story.tell("tool.requested", 1, stream=stream, tool=name, input=given, workspace=where, effect_key=key)
        story.tell("tool.returned", 2, cause=call, stream=stream, tool=name, **told)

    use("write", f"w{content}", {"path": "a", "content": content}, place, home, output="ok", commit=left)
    took = {"seconds": seconds, "signal": None}
    use("command", f"c{letter}", {"command": "ls"}, {**place, "commit": left}, home, output="a", commit=left, data=took)
    use("workspace.diff", "", {"base": "0" * 40, "commit": left}, place, "run", output="+1")
    messages = [{"role": "user", "content": f"commit:\n{left}\n\ndiff:\n+1"}]
    asked: dict[str, Any] = {
        "role": "reviewer",
        "turn": 1,
        "conversation": "review:fix.1.1",
        "task_id": "fix",
        "messages": messages,
    }
    call = story.tell("model.requested", 3, stream="run", effect_key=f"m{letter}", **asked)
    story.tell("model.responded", 4, cause=call, stream="run", message={"content": [{"type": "text", "text": "yes"}]})
    use("workspace.integrate", "", {"commit": left, "task_id": "fix"}, place, "run", output=left, data={"head": left})
    return story


def test_commits_go_by_what_made_them() -> None:
    """The same calls leave other commits at another time: what was asked of these is the same; of another content it is not."""
    same = _compare(_writes(Story(), "a"), _writes(Story(OTHER), "b", seconds=0.7))
    assert same.empty, same.differences
    other = _compare(_writes(Story(), "a"), _writes(Story(OTHER), "b", content="2"))
    assert [pair.asked for pair in other.pairs] == [True] * 5


def test_an_answer_that_differs_below_its_first_line_is_told_so() -> None:
    """It was not asked for otherwise, and says nothing that one line could show; what has no answer yet says that."""
    a, b = _asks(Story(), ("k1", "look\nhere", "1"), ("k2", "x", "1")), _asks(Story(OTHER), ("k1", "look\nthere", "1"))
    asked: dict[str, Any] = {"role": "drone", "turn": 2, "conversation": "drone", "task_id": "fix"}
    b.tell("model.requested", 2, stream="drone/fix.1", effect_key="k2", **asked)
    shown = [plain(line) for line in lines(_compare(a, b), width=120)]
    assert [line.split("  ")[-1].strip() for line in shown if line.startswith("~")] == [
        "otherwise below its first line: look",
        "not answered in b: x",
    ]


def test_tasks_and_the_run_are_compared_by_what_became_of_them() -> None:
    """Status, output, exit code, tries and verdicts; what is alike is left out."""
    a, b = two_steps(), two_steps()
    b.records = [
        record._replace(payload=record.payload.replace("shipped", "sunk"))
        if record.topic in {"task.returned", "task.completed", "workflow.completed"}
        else record
        for record in b.records
    ]
    b.records = [Record._make(record) for record in b.records]
    comparison = _compare(a, b)
    assert comparison.run == {"output": ("shipped", "sunk")}
    assert [(change.task, change.fields) for change in comparison.tasks] == [("ship", {"output": ("shipped", "sunk")})]
    shown = [plain(line) for line in lines(comparison, width=100)]
    assert "the run: output  shipped → sunk" in shown
    assert _fates(comparison)[-1] == ("changed", "./ship")


def test_a_branch_shares_what_it_inherited() -> None:
    """What it inherited open and asked again counts once; shared events are counted."""
    a = _asks(Story(), ("k1", "look", "1"), ("k2", "write", "1"))
    asked = [number for number, record in enumerate(a.records) if record.topic == "model.requested"]
    branch = Story(OTHER)
    _asks(branch, ("k1", "look", "1"), ("k2", "other", "1"))
    own = [record for record in branch.records if record.data.get("turn") == 2 or record.position > 6]
    prefix = a.records[: asked[1] + 1]
    comparison = compare(
        RUN,
        a.records,
        OTHER,
        [
            *prefix,
            *(Record._make(row._replace(event_id=f"b{row.event_id}")) for row in own if row.topic == "model.requested"),
        ],
    )
    assert comparison.shared == len(prefix)
    assert [(pair.fate, pair.either.label) for pair in comparison.pairs] == [
        ("reused", "drone, turn 1"),
        ("changed", "drone, turn 2"),
    ]


def test_a_run_is_shown_beside_itself() -> None:
    """No difference is one line; with everything, every effect is there."""
    comparison = _compare(a_drone(), a_drone())
    shown = [plain(line) for line in lines(comparison, width=100)]
    assert shown[-1] == f"no difference: {len(comparison.pairs)} effects alike"
    assert len(lines(comparison, width=100, everything=True)) == len(shown) + 1 + len(comparison.pairs)


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 2**32))
def test_nothing_differs_from_itself(chance: Random, seed: int) -> None:
    """Hypothesis: diff(a, a) is empty for any run and any part of it, and every effect of two runs is in one pair."""
    log = a_random_run(chance).log
    run = log[0].correlation_id
    part = log[: chance.randint(1, len(log))]
    assert compare(run, log, run, log).empty
    assert compare(run, part, run, part).empty
    assert compare(run, part, run, log).count("lost") == 0
    other = a_random_run(Random(seed)).log
    pairs = compare(run, log, run, other).pairs
    assert sorted(pair.a.position for pair in pairs if pair.a) == [effect.position for effect in effects(run, log)]
    assert sorted(pair.b.position for pair in pairs if pair.b) == [effect.position for effect in effects(run, other)]
    assert all(_sound(pair) for pair in pairs)


def _sound(pair: Pair) -> bool:
    """Whether a pair's fate is what its sides say."""
    if pair.a is None or pair.b is None:
        return pair.fate == ("new" if pair.a is None else "lost")
    alike = (pair.a.key, pair.a.result) == (pair.b.key, pair.b.result)
    return pair.fate == ("reused" if alike else "changed") and pair.asked == (pair.a.key != pair.b.key)
