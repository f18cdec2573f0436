"""The reviewer: judges a task's result on its evidence; several can vote.

Owns the conversations with the reviewing models and the counting of their votes.
What follows from a verdict is the queen's. Pure.

A vote that cannot be read is asked for again, three times in all; after that, or
when its model fails, it is no vote. Approved is what more than half of all asked
approve, rejected what more than half reject; what lies between needs changes. A
result that too few could judge is rejected: nothing passes unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal

from agents.conversation import Conversation, ask, ask_again, heard, inherited, lapsed
from agents.model import text_of
from agents.plan import PlanFault, loads
from agents.prompts import REVIEWER_SYSTEM, review_again, review_prompt
from agents.terms import NO_BRANCH, Terms
from hive_bus.brains.brain import Brain, Input
from hive_bus.event import Draft, Event
from hive_bus.events.model import ModelCancelled, ModelCancelRequested, ModelFailed, ModelRequested, ModelResponded
from hive_bus.events.task import TaskReviewCompleted, TaskReviewRequested
from hive_bus.events.workflow import (
    WorkflowCancelled,
    WorkflowCancelRequested,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowForked,
    WorkflowResumed,
)

__all__ = ["ANSWERS", "Review", "Reviewer", "Reviewing", "Vote"]

ANSWERS: Final = 3
MOST_VOTES: Final = 9
Verdict = Literal["approved", "changes_requested", "rejected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One reviewer's part: ``verdict`` is empty while it is open, ``none`` when there will be none."""

    talk: Conversation
    verdict: str = ""
    comments: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A result that waits for its verdict."""

    task_id: str
    try_number: int
    round: int
    prompt: str
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewing:
    """The open reviews of a run, by task, and whose call an intent is."""

    reviews: dict[str, Review] = field(default_factory=dict)
    calls: dict[str, tuple[str, int]] = field(default_factory=dict)
    cancelling: bool = False
    over: bool = False
    terms: Terms = NO_BRANCH

    def with_vote(self, task_id: str, index: int, vote: Vote) -> Reviewing:
        """With another state of one vote."""
        review = self.reviews[task_id]
        votes = (*review.votes[:index], vote, *review.votes[index + 1 :])
        return replace(self, reviews={**self.reviews, task_id: replace(review, votes=votes)})

    def with_talks(self, change: Callable[[Conversation], Conversation]) -> Reviewing:
        """With every conversation changed."""
        reviews = {
            name: replace(review, votes=tuple(replace(vote, talk=change(vote.talk)) for vote in review.votes))
            for name, review in self.reviews.items()
        }
        return replace(self, reviews=reviews)


class Reviewer(Brain[Reviewing]):
    """Answers every ``task.review_requested`` with one ``task.review_completed``."""

    name: ClassVar[str] = "reviewer"
    version: ClassVar[int] = 1
    opens: ClassVar[str] = "workflow.requested"
    modules: ClassVar[tuple[str, ...]] = ("agents.conversation", "agents.plan", "agents.prompts", "agents.terms")
    folds: ClassVar[tuple[str, ...]] = (
        "workflow.requested",  # says nothing to it, but opens the key: at the run's end there is no history to read
        "workflow.forked",
        "task.review_requested",
        "task.review_completed",
        "workflow.cancel_requested",
        "workflow.completed",
        "workflow.failed",
        "workflow.cancelled",
        "workflow.resumed",
        "model.requested",
        "model.responded",
        "model.failed",
        "model.cancelled",
        "model.cancel_requested",
    )

    def initial(self) -> Reviewing:
        """Nothing to review yet."""
        return Reviewing()

    def evolve(self, state: Reviewing, record: Input) -> Reviewing:
        """What an event means for the reviews."""
        match record.event:
            case TaskReviewRequested() as asked:
                return replace(state, reviews={**state.reviews, asked.task_id: _review(asked, state.terms)})
            case WorkflowForked():
                return state.with_talks(lapsed)
            case TaskReviewCompleted(task_id=task_id):
                kept = {name: review for name, review in state.reviews.items() if name != task_id}
                return replace(state, reviews=kept)
            case WorkflowCancelRequested():
                return replace(state, cancelling=True)
            case WorkflowCompleted() | WorkflowFailed() | WorkflowCancelled():
                return replace(state, over=True)
            case WorkflowResumed() if state.over:
                return replace(state, over=False, cancelling=False)
            case ModelRequested(role="reviewer") as call:
                return _called(state, call, record)
            case ModelCancelRequested(intent_id=intent) if intent in state.calls:
                task_id, index = state.calls[intent]
                vote = state.reviews[task_id].votes[index]
                return state.with_vote(task_id, index, replace(vote, talk=heard(vote.talk, record)))
            case ModelResponded() | ModelFailed() | ModelCancelled() if record.causation_id in state.calls:
                return _heard(state, record, record.causation_id or "")
            case _:
                return state

    def decide(self, state: Reviewing, record: Input) -> Sequence[Event | Draft]:
        """Ask for the votes that are missing, and count those that are there."""
        return [event for review in state.reviews.values() for event in _next(state, review)]

    def inherit(self, state: Reviewing, forked: Input) -> Reviewing:
        """The reviews under the branch's terms."""
        assert isinstance(forked.event, WorkflowForked), forked
        terms = state.terms.under(forked.event)
        state = state.with_talks(lambda talk: inherited(talk, model=terms.model("reviewer", talk.model)))
        return replace(state, terms=terms)

    def ended(self, state: Reviewing) -> bool:
        """Whether the run has ended and no review is open."""
        return state.over and not state.reviews


def _review(asked: TaskReviewRequested, terms: Terms) -> Review:
    wanted = (asked.model_extra or {}).get("votes", 1)
    count = min(max(int(wanted), 1), MOST_VOTES) if isinstance(wanted, int) else 1
    votes = tuple(
        Vote(
            talk=Conversation(
                name=f"review:{asked.task_id}.{asked.try_number}.{number}",
                role="reviewer",
                model=terms.model("reviewer", asked.model),
                task_id=asked.task_id,
                try_number=asked.try_number,
            )
        )
        for number in range(1, count + 1)
    )
    prompt = review_prompt(instructions=asked.instructions, output=asked.output, evidence=asked.evidence)
    return Review(task_id=asked.task_id, try_number=asked.try_number, round=asked.round, prompt=prompt, votes=votes)


def _called(state: Reviewing, call: ModelRequested, record: Input) -> Reviewing:
    review = state.reviews.get(call.task_id)
    if review is None:
        return state
    for index, vote in enumerate(review.votes):
        if vote.talk.name == call.conversation:
            state = state.with_vote(call.task_id, index, replace(vote, talk=heard(vote.talk, record), fault=""))
            return replace(state, calls={**state.calls, record.event_id: (call.task_id, index)})
    return state


def _heard(state: Reviewing, record: Input, intent: str) -> Reviewing:
    task_id, index = state.calls[intent]
    state = replace(state, calls={key: call for key, call in state.calls.items() if key != intent})
    vote = state.reviews[task_id].votes[index]
    vote = replace(vote, talk=heard(vote.talk, record))
    event = record.event
    if not isinstance(event, ModelResponded):
        return state.with_vote(task_id, index, replace(vote, verdict="none"))
    try:
        verdict, comments = _verdict(text_of(event.message.get("content", ())))
    except PlanFault as fault:
        given_up = vote.talk.turn >= ANSWERS
        vote = replace(vote, fault=fault.reasons[0], verdict="none" if given_up else "")
    else:
        vote = replace(vote, verdict=verdict, comments=comments)
    return state.with_vote(task_id, index, vote)


def _verdict(text: str) -> tuple[str, tuple[str, ...]]:
    value: Any = loads(text)
    verdict = value.get("verdict") if isinstance(value, dict) else None
    if verdict not in ("approved", "changes_requested", "rejected"):
        raise PlanFault(('"verdict" must be "approved", "changes_requested" or "rejected"',))
    said = value.get("comments") or ()
    comments = [said] if isinstance(said, str) else said
    if not isinstance(comments, list | tuple) or not all(isinstance(comment, str) for comment in comments):
        raise PlanFault(('"comments" must be a list of texts',))
    return verdict, tuple(comments)


def _next(state: Reviewing, review: Review) -> Iterator[Event]:
    if state.cancelling:
        if any(vote.talk.open for vote in review.votes):
            for vote in review.votes:
                yield from vote.talk.cancel()
        else:
            yield _completed(review, "rejected", ("the run was cancelled",))
        return
    if all(vote.verdict for vote in review.votes):
        yield _counted(review)
        return
    for vote in review.votes:
        if not vote.verdict and not vote.talk.open:
            system = state.terms.prompt("reviewer", REVIEWER_SYSTEM)
            prompt = review_again(vote.fault) if vote.fault else review.prompt
            yield ask_again(vote.talk, system=system) if vote.talk.again else ask(vote.talk, prompt, system=system)


def _counted(review: Review) -> TaskReviewCompleted:
    verdicts = [vote.verdict for vote in review.votes]
    comments = tuple(comment for vote in review.votes if vote.verdict != "none" for comment in vote.comments)
    if 2 * verdicts.count("approved") > len(verdicts):
        return _completed(review, "approved", comments)
    if 2 * verdicts.count("rejected") > len(verdicts):
        return _completed(review, "rejected", comments)
    if verdicts.count("changes_requested") or verdicts.count("rejected"):
        return _completed(review, "changes_requested", comments)
    return _completed(review, "rejected", (*comments, "too few reviewers gave a verdict"))


def _completed(review: Review, verdict: Verdict, comments: tuple[str, ...]) -> TaskReviewCompleted:
    return TaskReviewCompleted(
        task_id=review.task_id,
        try_number=review.try_number,
        round=review.round,
        verdict=verdict,
        comments=comments,
    )
