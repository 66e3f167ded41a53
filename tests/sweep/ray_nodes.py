"""A Ray cluster on this machine whose nodes come and go as standard input says.

Started by the tests of the cluster, in a process of its own as Ray keeps much in globals. It
prints the address, and then a line for each of "add", "lose" (a node, without warning) and "kill"
(a process in the middle of a shard).
"""

import os
import signal
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster

_NODE = {"object_store_memory": 80 * 2**20}
# A lost node is noticed after some seconds, in place of half a minute.
_SYSTEM = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}


def _workers(parent: int) -> list[int]:
    """Processes of a node that train."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[1]) == parent and b"ray::train" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has just ended
            continue
    return found


def _kill(cluster: Cluster) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for node in cluster.worker_nodes:
            for pid in _workers(node.all_processes["raylet"][0].process.pid):
                os.kill(pid, signal.SIGKILL)
                return f"killed {pid}"
        time.sleep(0.02)
    return "nobody was at work"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": _SYSTEM, **_NODE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        cluster.add_node(num_cpus=1, **_NODE)
    _say(str(cluster.address))
    for line in sys.stdin:
        said = ""
        if line == "add\n":
            cluster.add_node(num_cpus=1, **_NODE)
        elif line == "lose\n":
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        else:
            said = _kill(cluster)
        _say(said)
    cluster.shutdown()


if __name__ == "__main__":
    main()
