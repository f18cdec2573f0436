"""The hive's own hands: commands and tools that perform tasks, tools that drones call, and models."""

from agents.hands.model import ModelHand
from agents.hands.places import Places
from agents.hands.task import CommandHand, TaskToolHand
from agents.hands.tool import ToolHand

__all__ = ["CommandHand", "ModelHand", "Places", "TaskToolHand", "ToolHand"]
