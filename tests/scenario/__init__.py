"""Brains: given events, when this happens, then these decisions."""
