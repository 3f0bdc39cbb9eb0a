"""The second part of the demo: Checkpoint takes builds through staging, dogfood, canary and production, under load.

A good build goes all the way; another one, which no probe finds fault with, is stopped by what its customers meet.
"""
