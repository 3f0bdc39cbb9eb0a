"""Measurements side by side with other tools; no part of the distribution, and no test.

`bench_*.py` are the programs, one question each. `corpus` makes what is deployed, `lab` the ground on which it is
deployed, `peers` the other tools, `host` our agent under a stopwatch, `report` the tables, the plot and the page.
"""
