"""What comes out of a task group when several of its tasks fail."""

from __future__ import annotations

import pytest

from hive_bus.tasks import together
from hive_errors import EpochOver, HiveError


def over(epoch: int) -> HiveError:
    """The word that a log's new epoch has for whoever is of the one before."""
    return EpochOver(url="sqlite:///hive.db", held=1, actual=epoch)


async def fail(*errors: Exception) -> None:
    """Have each error raised by a task of its own, in one group."""

    async def failing(error: Exception) -> None:
        raise error

    async with together() as tasks:
        for error in errors:
            tasks.create_task(failing(error))


async def test_what_all_say_alike_is_said_once() -> None:
    """When a new epoch ends every group of a process at the same time, the process ends with that one error and its advice."""
    with pytest.raises(EpochOver, match="epoch 2"):
        await fail(over(2), over(2), over(2))


@pytest.mark.parametrize("errors", [(over(2), over(3)), (ValueError("no"), ValueError("no"))], ids=["hive", "other"])
async def test_different_failures_stay_a_group(errors: tuple[Exception, ...]) -> None:
    """What is not the same is shown whole, and so are failures that no part of the hive has put into words."""
    with pytest.raises(ExceptionGroup) as caught:
        await fail(*errors)
    assert len(caught.value.exceptions) == 2
