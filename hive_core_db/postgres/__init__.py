"""The ports of floor 2 on PostgreSQL."""
