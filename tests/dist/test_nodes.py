"""Two nodes: on one machine, and as two hosts with a cable that can be pulled out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from local_ports import free_port
from nodes import ADDRESSES, Nodes, two_hosts, wait_until
from small_run import RunFolder

pytest_plugins = ["nodes"]
pytestmark = pytest.mark.slow

# As in test_data_parallel.py: dropout masks are drawn per rank.
EXACT = ["Model.drop_rate=0.0", "Model.drop_path_rate=0.0", "Global.global_batch_size=250"]
ONE_BATCH_SIZE = "~DataLoader.Train.sampler.batch_size"


def options(run: RunFolder, *overrides: str) -> list[str]:
    return ["-c", str(run.config_file), "-o", ONE_BATCH_SIZE, *EXACT, *overrides]


def test_two_nodes_on_one_machine_train_as_two_processes_do(
    nodes: Nodes, make_run, repo: Path
) -> None:
    apart, together = make_run("apart"), make_run("together")
    master = f"127.0.0.1:{free_port()}"
    pair = [
        nodes.start(
            f"n{rank}",
            options(apart, "Global.epochs=1"),
            PADDLE_NNODES="2",
            PADDLE_MASTER=master,
            PADDLE_RANK=str(rank),
        )
        for rank in (0, 1)
    ]
    one = nodes.start("one", options(together, "Global.epochs=1"), PASSL_NPROC="2")
    statuses = nodes.finish(*pair, one)
    assert statuses == [0, 0, 0], "".join(node.said() for node in pair)
    assert "global batch 250 = 2 processes x 125 images" in pair[0].said()
    for name, value in together.weights().items():
        np.testing.assert_allclose(apart.weights()[name], value, rtol=0, atol=2e-5, err_msg=name)


def test_two_hosts_with_their_addresses_told_pass_the_preflight(nodes: Nodes) -> None:
    with two_hosts() as hosts:
        pair = [
            nodes.start(
                f"h{rank}",
                ["--check", "--", "--timeout", "200"],
                prefix=tuple(hosts.enter(rank)),
                POD_IP=ADDRESSES[rank],
                PADDLE_NNODES="2",
                PADDLE_MASTER=f"{ADDRESSES[0]}:29533",
                PADDLE_RANK=str(rank),
            )
            for rank in (0, 1)
        ]
        assert nodes.finish(*pair) == [0, 0], pair[0].said() + pair[1].said()
        said = pair[0].said()
    assert "all 2 processes are here and agree" in said
    for address, cable in zip(ADDRESSES, hosts.cables):
        assert f"{cable}={address}" in said


def test_a_host_cut_off_ends_both_sides_and_the_same_command_continues(
    nodes: Nodes, make_run
) -> None:
    run = make_run("cut")
    # Long enough to be cut in the middle, then shortened to a few more steps.
    long = options(run, "Global.epochs=100000", "Global.save_interval=1",
                   "Global.eval_during_train=false")  # fmt: skip

    def start_both(hosts, arguments):
        return [
            nodes.start(
                f"h{rank}",
                arguments,
                prefix=tuple(hosts.enter(rank)),
                POD_IP=ADDRESSES[rank],
                PADDLE_NNODES="2",
                PADDLE_MASTER=f"{ADDRESSES[0]}:29534",
                PADDLE_RANK=str(rank),
            )
            for rank in (0, 1)
        ]

    with two_hosts() as hosts:
        pair = start_both(hosts, long)
        wait_until(lambda: (run.dir / "latest").exists(), "the first checkpoint")
        hosts.cut()
        # 30 s is Gloo's own limit; the launchers notice within seconds after it.
        statuses = nodes.finish(*pair)
        assert all(status not in (0, 75) for status in statuses), statuses
        for node in pair:
            assert "the reason is in" in node.screen.read_text()
            assert any(word in node.said() for word in ("timed out", "TIMEOUT", "Timed out")), (
                node.said()[-2000:]
            )
        stopped_at = run.state()["step"]
        assert stopped_at > 0

        hosts.mend()
        again = start_both(hosts, [*long, f"Global.max_train_step={stopped_at + 8}"])
        assert nodes.finish(*again) == [0, 0], again[0].said() + again[1].said()
    assert run.state()["step"] == stopped_at + 8
    steps = [record["step"] for record in run.records("train")]
    assert max(steps) <= stopped_at + 8
