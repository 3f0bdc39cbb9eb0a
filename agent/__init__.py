"""The daemon on every host: watch, decide, fetch, drain, swap, prove, report.

`agent.daemon.run` is the process; `agent.machine` decides; `agent.work` does; `agent.server` tells.
"""
