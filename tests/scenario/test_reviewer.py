"""The reviewer: votes, nonsense, and what is made of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agents.reviewer import Reviewer
from hive_bus.events.model import ModelFailed, ModelRequested, ModelResponded
from hive_bus.events.task import TaskReviewCompleted, TaskReviewRequested
from hive_bus.events.workflow import WorkflowCancelRequested
from tests.support.scenario import Hive


def requested(votes: int = 1, task: str = "fix") -> Hive:
    """A review is wanted."""
    more: dict[str, Any] = {"votes": votes}
    event = TaskReviewRequested(
        task_id=task,
        try_number=2,
        round=2,
        instructions="Mend it.",
        output="Mended.",
        evidence={"diff": "+ a", "needs": {"test": "1 failed"}, "commit": None},
        model="m",
        **more,
    )
    return Hive(Reviewer()).given(event)


def says(text: str, vote: int = 1) -> ModelResponded:
    """The model of a vote says this."""
    message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    return ModelResponded(conversation=f"review:fix.2.{vote}", message=message)


def votes(verdict: str, *comments: str, vote: int = 1) -> ModelResponded:
    """The model of a vote gives this verdict."""
    return says(json.dumps({"verdict": verdict, "comments": comments}), vote)


def test_the_reviewer_is_shown_task_result_and_evidence() -> None:
    """Each vote is a conversation of its own."""
    call = requested().last(ModelRequested)
    assert (call.role, call.conversation, call.task_id, call.try_number) == ("reviewer", "review:fix.2.1", "fix", 2)
    text = call.messages[0]["content"]
    for shown in ("Mend it.", "Mended.", "+ a", "1 failed"):
        assert shown in text
    assert "commit" not in text


@pytest.mark.parametrize("verdict", ["approved", "changes_requested", "rejected"])
def test_one_vote_is_the_verdict(verdict: str) -> None:
    """With its comments, for the try and round that was asked about."""
    done = requested().when(votes(verdict, "so")).last(TaskReviewCompleted)
    assert (done.verdict, done.comments, done.try_number, done.round) == (verdict, ("so",), 2, 2)


def test_a_fenced_verdict_with_one_comment_is_read() -> None:
    """Models like to talk around it."""
    text = 'Well.\n```json\n{"verdict": "approved", "comments": "fine"}\n```'
    assert requested().when(says(text)).last(TaskReviewCompleted).comments == ("fine",)


@pytest.mark.parametrize(
    "nonsense", ["Looks good!", '{"verdict": "great"}', "[]", '{"verdict": "approved", "comments": [1]}']
)
def test_nonsense_is_asked_again_with_the_reason(nonsense: str) -> None:
    """In the same conversation."""
    hive = requested().when(says(nonsense))
    call = hive.last(ModelRequested)
    assert (call.turn, call.conversation) == (2, "review:fix.2.1")
    assert "no verdict" in call.messages[0]["content"]
    assert hive.when(votes("approved")).last(TaskReviewCompleted).verdict == "approved"


def test_three_times_nonsense_is_no_vote_and_nothing_passes_unseen() -> None:
    """A result that nobody could judge is rejected."""
    hive = requested().when(says("1")).when(says("2")).when(says("3"))
    done = hive.last(TaskReviewCompleted)
    assert (done.verdict, done.comments) == ("rejected", ("too few reviewers gave a verdict",))
    assert len(hive.all(ModelRequested)) == 3


def test_a_failed_model_is_no_vote() -> None:
    """The others decide."""
    hive = requested(3)
    first = hive.open_of(ModelRequested)[0]
    hive.when(ModelFailed(reason="x"), ends=first).when(votes("approved", vote=2)).when(votes("approved", vote=3))
    assert hive.last(TaskReviewCompleted).verdict == "approved"


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (("approved", "approved", "rejected"), "approved"),
        (("rejected", "rejected", "approved"), "rejected"),
        (("approved", "changes_requested", "rejected"), "changes_requested"),
        (("approved", "changes_requested", "changes_requested"), "changes_requested"),
    ],
)
def test_the_majority_of_several_votes_decides(given: tuple[str, ...], verdict: str) -> None:
    """What lies between needs changes; everybody's comments are kept, in the order of the votes."""
    hive = requested(3)
    assert len(hive.open_of(ModelRequested)) == 3
    for number in (3, 1, 2):
        hive.when(votes(given[number - 1], str(number), vote=number))
    done = hive.last(TaskReviewCompleted)
    assert (done.verdict, done.comments) == (verdict, ("1", "2", "3"))


def test_a_cancelled_run_has_its_answer_after_the_calls_have_ended() -> None:
    """Every open call is asked to end once; the queen need not wait for a verdict that never comes."""
    hive = requested(2).given(WorkflowCancelRequested(), WorkflowCancelRequested())
    assert hive.topics.count("model.cancel_requested") == 2
    first, second = hive.open_of(ModelRequested)
    hive.cancelled(first)
    assert not hive.all(TaskReviewCompleted)
    hive.cancelled(second)
    assert hive.last(TaskReviewCompleted).comments == ("the run was cancelled",)


def test_reviews_of_several_tasks_do_not_mix() -> None:
    """Each call belongs to its own."""
    hive = requested()
    hive.given(TaskReviewRequested(task_id="doc"))
    hive.when(votes("approved"))
    assert [done.task_id for done in hive.all(TaskReviewCompleted)] == ["fix"]
    assert hive.refolded() == hive.states
