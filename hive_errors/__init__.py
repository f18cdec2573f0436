"""What can go wrong: every error of the hive, one file per floor, standard library only."""

from hive_errors.base import HiveError
from hive_errors.models import ModelError, ModelNotInstalled, ModelSettingMissing, ScriptInvalid, UnknownModel
from hive_errors.store import DuplicateMismatch, Fenced, LogCorrupt, StoreError, StreamConflict, WorkEnded

__all__ = [
    "DuplicateMismatch",
    "Fenced",
    "HiveError",
    "LogCorrupt",
    "ModelError",
    "ModelNotInstalled",
    "ModelSettingMissing",
    "ScriptInvalid",
    "StoreError",
    "StreamConflict",
    "UnknownModel",
    "WorkEnded",
]
