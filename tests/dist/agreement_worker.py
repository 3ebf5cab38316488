"""A worker of test_agreement.py: which numbers this rank finds to be the same on all ranks.

agreement_worker.py FOLDER     writes FOLDER/<rank>.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from passl.runtime import import_paddle, prepare

prepare()
import_paddle()

from passl.distributed.collectives import all_ranks_have, init_world  # noqa: E402
from passl.distributed.world import read_world  # noqa: E402

#: Steps, 48 bits of hashes as a teacher's, and the largest number there can be.
NUMBERS = [0, 1, 99_999_999, *(0x123456789ABC * k % 2**48 for k in range(1, 40)), 2**63 - 1]


def main() -> None:
    world = read_world()
    init_world(world)
    last = world.size - 1
    found = {
        "same": [all_ranks_have(number, world) for number in NUMBERS],
        "another": [all_ranks_have(number - (world.rank == last), world) for number in NUMBERS],
    }
    (Path(sys.argv[1]) / f"{world.rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
