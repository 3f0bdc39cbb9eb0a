"""Checkpoint's web side: what the deploy commander looks at, and presses. `checkpoint.web.app` puts it together.

Every decision is left to `checkpoint.actions` and below: pages show what it says, and buttons call it.
"""
