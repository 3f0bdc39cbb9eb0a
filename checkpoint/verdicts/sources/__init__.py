"""Where counts come from: agents' reports, Prometheus, a command, a URL.

What they mean is left to `checkpoint.verdicts`. A source that fails, is late or says what cannot be true gives an
interval with a `problem`, and so no verdict; nothing is raised for it::

    async with Sources(metrics) as sources:
        interval = await sources.observe(metric, asked)
"""

from checkpoint.verdicts.sources.asking import Answer, Asked, SourceFailed, interval_of
from checkpoint.verdicts.sources.sources import Source, Sources

__all__ = ["Answer", "Asked", "Source", "SourceFailed", "Sources", "interval_of"]
