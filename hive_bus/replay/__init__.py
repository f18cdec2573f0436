"""Replay: past positions and the states at them, today's code against recorded decisions, and histories between hives."""
