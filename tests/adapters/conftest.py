"""Makes the mixers' cases, and the processes of tests/training, importable here."""

import sys
from pathlib import Path

for folder in ("mixers", "training"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
