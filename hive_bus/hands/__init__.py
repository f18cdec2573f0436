"""Hands: workers that perform effects, how work is claimed for them, and what each outcome means in the log."""
