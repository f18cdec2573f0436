"""Workspaces: the repository a run works in, a worktree for every attempt, and how the result comes back."""
