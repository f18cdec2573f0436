"""Brains: pure deciders, how their state is folded from the log, and the host that feeds them and appends what they decide."""
