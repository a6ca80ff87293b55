"""A Ray cluster on this machine, of nodes with a processor each, for as long as standard input is open.

    python -m ispeed.bench.ray_nodes NODES

Prints {"address": ...}, and after a line "kill" on standard input, which takes a node away as a power cut would,
{"left": n}. Ray warns and starts processes as it likes, so it has a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile

_MEMORY = 80 << 20  # bytes of the store of each node; nothing large goes through it


def main() -> None:
    """Serves."""
    # stdout is for what is told here: Ray says what it likes on it, too
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        _say(out, why="Ray is not installed; run: pip install 'ispeed[ray]'")
        return
    folder = tempfile.mkdtemp(prefix="isp-ray-", dir="/tmp")  # short: a socket's path has 107 bytes
    # The cluster's address is written there, into a folder that Ray expects to be there from runs before.
    os.environ["RAY_TMPDIR"] = folder
    os.mkdir(os.path.join(folder, "ray"))
    head = {"num_cpus": 1, "object_store_memory": _MEMORY, "include_dashboard": False, "temp_dir": folder}
    cluster = None
    try:
        cluster = Cluster(initialize_head=True, head_node_args=head)
        others = [cluster.add_node(num_cpus=1, object_store_memory=_MEMORY) for _ in range(int(sys.argv[1]) - 1)]
        cluster.wait_for_nodes()
        _say(out, address=cluster.address)
        for line in sys.stdin:
            if line.strip() == "kill":
                cluster.remove_node(others.pop(), allow_graceful=False)
                _say(out, left=1 + len(others))
    finally:
        if cluster is not None:
            cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _say(out: object, **facts: object) -> None:
    print(json.dumps(facts), file=out, flush=True)  # type: ignore[call-overload]


if __name__ == "__main__":
    main()
