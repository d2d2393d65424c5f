"""Makes the toy experiment of tests/training, and the means to run recipes of tests/recipes, importable here."""

import sys
from pathlib import Path

for folder in ("training", "recipes"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
