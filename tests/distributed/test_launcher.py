"""What the launcher tells each of the processes that it starts."""

import json
import sys

from src.distributed.__main__ import Job

NAMES = ("MS_ROLE", "MS_WORKER_NUM", "MS_NODE_ID", "RANK_SIZE", "RANK_ID", "DEVICE_ID")
WRITE = """
import json, os, sys
role = os.environ["MS_ROLE"] + os.environ.get("RANK_ID", "")
json.dump(dict(os.environ), open(f"{sys.argv[1]}/{role}", "w"))
"""


def test_each_rank_gets_the_variables_of_msrun_a_card_of_its_own_among_them(tmp_path):
    assert Job(3, [sys.executable, "-c", WRITE, str(tmp_path)]).run() == 0
    for rank in range(3):
        told = json.loads((tmp_path / f"MS_WORKER{rank}").read_text())
        own = [told[name] for name in NAMES]
        assert own == ["MS_WORKER", "3", str(rank), "3", str(rank), str(rank)]
        assert told["MS_SCHED_HOST"] == "127.0.0.1" and told["MS_SCHED_PORT"].isdigit()
