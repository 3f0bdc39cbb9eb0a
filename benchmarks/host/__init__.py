"""Our own side under a stopwatch: real agent, real command, real store, each as a process of its own.

What a deploy took is read from the agent's log, which counts on the agent's clock from the moment it saw the order.
"""

from benchmarks.host.agent import AgentHost, Deployed, DeployFailed
from benchmarks.host.builds import Build, Builds
from benchmarks.host.memory import PeakMemory
from benchmarks.host.socket_poll import SocketPoll

__all__ = ["AgentHost", "Build", "Builds", "DeployFailed", "Deployed", "PeakMemory", "SocketPoll"]
