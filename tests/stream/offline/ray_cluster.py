"""A Ray cluster on this machine, of nodes with a processor each, for as long as standard input is open.

    python ray_cluster.py NODES

Writes one line for each: {"address": ...}, and after "kill" on standard input, which takes a node away as a power cut
would, {"left": n}. Ray warns and forks as it likes, so it is kept out of the process that tests.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")

from ray.cluster_utils import Cluster

MEMORY = 80 << 20  # bytes of the store of each node; nothing large goes through it


def say(**facts: object) -> None:
    """A line."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serves."""
    folder = tempfile.mkdtemp(prefix="isp-ray-", dir="/tmp")  # a short path: a socket's has at most 107 bytes
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": MEMORY,
            "include_dashboard": False,
            "temp_dir": folder,
        },
    )
    try:
        others = [cluster.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(int(sys.argv[1]) - 1)]
        cluster.wait_for_nodes()
        say(address=cluster.address)
        for line in sys.stdin:
            if line.strip() == "kill":
                cluster.remove_node(others.pop(), allow_graceful=False)
                say(left=1 + len(others))
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
