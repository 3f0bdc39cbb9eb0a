"""A rollout: its plan, its phases, how it goes on, and how that is written."""
