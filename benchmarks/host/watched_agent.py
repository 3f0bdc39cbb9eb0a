"""Runs the real agent, with a thread beside it that measures how late its event loop is.

    python -m benchmarks.host.watched_agent --config FILE --lags FILE

Every few milliseconds the thread hands the loop a callback and notes when it ran. What passes in between is what any
other callback had to wait: a blocking call in the loop, a long computation, or the interpreter lock held elsewhere.
The lags are written when the agent ends, a line for each: when it was measured on the monotonic clock, and the lag, in
seconds. It is a program of its own because the
agent has no need to know that it is watched.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from pathlib import Path
from typing import Final

from agent import daemon

_INTERVAL_S: Final = 0.005


class _Noting(asyncio.DefaultEventLoopPolicy):
    """Tells which loop the agent runs."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        self.loop = super().new_event_loop()
        return self.loop


class _Lags:
    def __init__(self, policy: _Noting) -> None:
        self.lags_s: list[tuple[float, float]] = []
        self._policy = policy

    def measure(self) -> None:
        while True:
            time.sleep(_INTERVAL_S)
            loop = self._policy.loop
            if loop is None or not loop.is_running():
                continue
            has_run = threading.Event()
            handed_s = time.monotonic()
            try:
                loop.call_soon_threadsafe(self._note, handed_s, has_run)
            except RuntimeError:
                return  # the loop is closed: the agent has ended
            has_run.wait()

    def _note(self, handed_s: float, has_run: threading.Event) -> None:
        now_s = time.monotonic()
        self.lags_s.append((now_s, now_s - handed_s))
        has_run.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--lags", type=Path, required=True)
    arguments = parser.parse_args()
    policy = _Noting()
    asyncio.set_event_loop_policy(policy)
    lags = _Lags(policy)
    threading.Thread(target=lags.measure, name="loop lag", daemon=True).start()
    status = daemon.run(arguments.config)
    arguments.lags.write_text("".join(f"{at_s:.6f} {lag_s:.6f}\n" for at_s, lag_s in lags.lags_s))
    raise SystemExit(status)


if __name__ == "__main__":
    main()
