"""Write the corpus into a directory: `python -m tests.hostile DIRECTORY`."""

import re
import sys
from pathlib import Path

from tests.hostile import FAMILIES

for family in FAMILIES:
    for case in family.cases:
        name = re.sub(r"\W+", "-", f"{family.name} {case.name}")
        path = Path(sys.argv[1], f"{name}.{case.archive_format}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case.make())
