"""The `hotcold` command: one file per group of sub-commands, loaded when it is used.

What the commands do is left to `agent`, `artifact`, `checkpoint` and `fleet`; here they are asked, and answers drawn.
"""
