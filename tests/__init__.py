"""The tests, by what they prove; see each folder's docstring."""
