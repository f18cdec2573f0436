"""The registry: which agents there are, what they can do and how they are, as events and leases."""
