"""Workflow files: how they are read and checked, their conditions, and the values that are put into them."""
