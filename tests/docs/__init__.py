"""The examples and sessions of the documentation, executed."""
