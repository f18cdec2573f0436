"""A limit as it is written down: how much of something may be used, by all processes together."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limit(BaseModel):
    """How much effects of one key may use at a time and per minute; None is no limit. What it is per is the key it stands under.

    A limit without numbers still counts what runs, and still pauses everybody when a provider asks one of them to wait.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int | None = Field(default=None, ge=1, description="effects side by side")
    requests_per_minute: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="starts per minute")
    tokens_per_minute: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="tokens per minute, in and out, by what was really used"
    )
