"""What can go wrong: every error of the hive, one file per floor, standard library only."""

from hive_errors.base import HiveError
from hive_errors.bus import (
    BlockingCall,
    BusClosed,
    BusError,
    FieldMissing,
    GuardedTopic,
    ImpureBrain,
    InvalidTopic,
    MetadataTooLarge,
    NewerVersion,
    NotFound,
    PayloadRefused,
    TimedOut,
    TopicTaken,
    UndecodableEvent,
    UnregisteredTopic,
    UpcasterMissing,
)
from hive_errors.models import ModelError, ModelNotInstalled, ModelSettingMissing, ScriptInvalid, UnknownModel
from hive_errors.store import DuplicateMismatch, Fenced, LogCorrupt, StoreError, StreamConflict, WorkEnded

__all__ = [
    "BlockingCall",
    "BusClosed",
    "BusError",
    "DuplicateMismatch",
    "Fenced",
    "FieldMissing",
    "GuardedTopic",
    "HiveError",
    "ImpureBrain",
    "InvalidTopic",
    "LogCorrupt",
    "MetadataTooLarge",
    "ModelError",
    "ModelNotInstalled",
    "ModelSettingMissing",
    "NewerVersion",
    "NotFound",
    "PayloadRefused",
    "ScriptInvalid",
    "StoreError",
    "StreamConflict",
    "TimedOut",
    "TopicTaken",
    "UndecodableEvent",
    "UnknownModel",
    "UnregisteredTopic",
    "UpcasterMissing",
    "WorkEnded",
]
