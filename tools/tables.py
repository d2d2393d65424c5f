"""Make the results tables of README files from their committed results.csv, or check that they agree.

python tools/tables.py --write            every README.md of the repository
python tools/tables.py --check FILE...    exit code 1 and the names of those that drifted
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lobes.errors import LobesError
from lobes.evaluation.tables import find_readmes, update_file


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0 all agree, 1 some drifted, 2 a table can't be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write the tables into the files")
    mode.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a table drifted")
    parser.add_argument("files", nargs="*", type=Path, help="README files; default: all of the repository")
    options = parser.parse_args(argv)
    root = Path(__file__).resolve().parent.parent
    try:
        changed = [path for path in options.files or find_readmes(root) if update_file(path, write=options.write)]
    except (LobesError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for path in changed:
        print(f"{path}: {'written' if options.write else 'differs from its results.csv; run tools/tables.py --write'}")
    return 1 if changed and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
