"""One suite for every port; each implementation runs it on the real thing."""
