"""Which pretraining helps to tell primate calls? Every encoder on the same clips, leaving one recorder out.

    LOBES_DATA=/corpora python tools/gibbon_study.py                     # all, seed 1; goes on where it was stopped
    LOBES_DATA=/corpora python tools/gibbon_study.py --pools calls --seeds 2 3

Pools: `calls`, unlabelled clips of the forest without the recorder to be tested (one pretraining for each recorder);
`heard`, with it (transductive: no label of it, but its sound); `both`, calls as in `calls`, and speech; `speech`, an
encoder that has heard no animal (--speech). Their controls are `untrained`, the same architecture with random weights,
and `log-mel`. Every run is one that its recipe's command gives; results go to results/gibbons.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from study import ROOT, train

from lobes.training import run

RECORDERS = ("S10", "S11", "S12", "S13", "S14", "S15", "S16", "S17")
POOLS = ("log-mel", "untrained", "speech", "calls", "heard", "both")
TASKS = {"call_type": "tiny.yaml", "duet": "duet.yaml"}


def main() -> None:
    """Run what has not been run yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pools", nargs="*", default=list(POOLS), choices=POOLS, metavar="POOL")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--recorders", nargs="*", default=list(RECORDERS), help="that are left out")
    parser.add_argument("--speech", default="sm-tiny", help="an encoder that was pretrained on speech")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gibbons")
    parser.add_argument("--steps", type=int, help="of pretraining, in place of the YAML's")
    parser.add_argument("--only_pretrain", action="store_true", help="leave the tasks for later")
    options = parser.parse_args()
    for seed in options.seeds:
        for pool in options.pools:
            pretrain(pool, seed, options.recorders, options.out, options.steps)
            for task in () if options.only_pretrain else options.tasks:
                probe(task, pool, seed, options.speech, options.out)


def pretrain(pool: str, seed: int, recorders: list[str], out: Path, steps: int | None) -> None:
    """Pretrain what a pool needs: an encoder for each recorder, or one that has heard them all."""
    hparams = "both.yaml" if pool == "both" else "tiny.yaml"
    extra = [f"--steps={steps}"] if steps else []
    for recorder in {"calls": recorders, "both": recorders, "heard": [""]}.get(pool, []):
        folder = out / "SSL" / pool / (recorder or "all") / str(seed)
        train("Gibbons/SSL", hparams, folder, pool, seed, [f"--held_out={recorder}", *extra])


def probe(task: str, pool: str, seed: int, speech: str, out: Path) -> None:
    """Probe a pool's encoders."""
    encoder = {
        "log-mel": "logmel-40-25hz",
        "untrained": speech,
        "speech": speech,
        "heard": str(out / "SSL" / "heard" / "all" / str(seed)),
    }.get(pool, str(out / "SSL" / pool / "{fold}" / str(seed)))
    options = [f"--encoder={encoder}", f"--untrained={pool == 'untrained'}"]
    options.append(f"--prepare.save_folder={out / 'manifests' / task}")
    train("Gibbons/call_type", TASKS[task], out / task / pool / str(seed), pool, seed, options)


if __name__ == "__main__":
    run(main)
