"""What a job asks for, and what a profile refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from lvray.launcher.profile import Profile, load_profile
from lvray.launcher.request import (
    LONGEST_SCRATCH,
    Wishes,
    charged,
    cores,
    refusals,
    request,
    workers,
)

ROOT = Path(__file__).parents[3]
KNOWN = {"HOME": "/home/ab123", "USER": "ab123"}
SHARED = "/rds/runs"


def csd3(**changes) -> Profile:
    profile = load_profile(str(ROOT / "cluster" / "csd3-ampere.yaml"))[0]
    return profile.model_copy(update=changes)


def asked(profile, **wishes):
    wishes = {"account": "P-SL3-GPU", "runs": SHARED, **wishes}
    job, unread = readable(profile, **wishes)
    assert unread == []
    return job


def readable(profile, **wishes):
    return request(
        profile,
        Wishes(**wishes),
        name="grid",
        arguments=(("grid.yaml",),),
        python="python",
        variables=KNOWN,
    )


def refused(profile, **wishes):
    return refusals(profile, asked(profile, **wishes), cluster="x.yaml", here=Path("/home/ab123"))


def test_what_the_command_line_leaves_out_comes_from_the_profile():
    job, unread = readable(csd3(account="OWN-SL3-GPU", python="$HOME/env/bin/python"))
    assert unread == []
    assert (job.nodes, job.gpus_per_node, job.seconds) == (1, 1, 43200)
    assert (job.account, job.partition) == ("OWN-SL3-GPU", "ampere")
    assert job.python == "/home/ab123/env/bin/python"
    assert job.runs == "/rds/user/ab123/hpc-work/lvray/runs"
    assert job.arguments == (("grid.yaml",), ("--runs", job.runs))


def test_more_than_one_node_takes_whole_nodes_where_the_site_wants_it():
    assert asked(csd3(), nodes=2).gpus_per_node == 4
    assert asked(csd3(whole_nodes_if_many=False), nodes=2).gpus_per_node == 1
    assert asked(csd3(), nodes=2, gpus_per_node=2).gpus_per_node == 2  # and is refused


def test_a_job_within_all_limits_is_refused_by_nobody():
    assert refused(csd3()) == []
    assert refused(csd3(), nodes=8) == []
    assert refused(csd3(), nodes=16, account="P-SL2-GPU", time="36:00:00") == []


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"account": None}, "wants one whose name ends in -GPU"),
        ({"account": "P-SL3-CPU"}, "account P-SL3-CPU"),
        ({"account": "P-GPU-SL3-CPU"}, "account P-GPU-SL3-CPU"),
        ({"time": "12:00:01"}, "12:00:00 at most"),
        ({"time": "0:05:00"}, "longer than the notice"),
        ({"nodes": 9}, "32 GPUs at most"),
        ({"nodes": 17, "account": "P-SL1-GPU"}, "64 GPUs at most"),
        ({"gpus_per_node": 5}, "has 4 on each node"),
        ({"nodes": 2, "gpus_per_node": 2}, "all 4 GPUs of each"),
        ({"runs": "/tmp/runs"}, "a node's own disk"),
        ({"runs": "/local/runs"}, "a node's own disk"),
    ],
)
def test_each_refusal_alone(wishes, words):
    (told,) = refused(csd3(), **wishes)
    assert words in told


def test_all_refusals_are_told_at_once():
    assert len(refused(csd3(), account=None, time="99:00:00", nodes=91, gpus_per_node=9)) == 4


def test_a_relative_run_folder_is_meant_from_here():
    job = asked(csd3(), runs="runs")
    told = refusals(csd3(), job, cluster="x.yaml", here=Path("/tmp/checkout"))
    assert "a node's own disk" in told[0]
    assert refusals(csd3(), job, cluster="x.yaml", here=Path("/rds/checkout")) == []


def test_a_folder_that_the_profile_calls_shared_is_believed():
    assert refused(csd3(shared=("/tmp/site",)), runs="/tmp/site/runs") == []
    assert len(refused(csd3(shared=("/tmp/site",)), runs="/tmp/sites/runs")) == 1


def test_the_longest_scratch_folder_leaves_room_for_a_socket():
    longest = "/" + "s" * (LONGEST_SCRATCH - 1)
    assert refused(csd3(scratch=longest)) == []
    assert f"{LONGEST_SCRATCH + 1} characters" in refused(csd3(scratch=f"{longest}s"))[0]
    # A job id of ten digits, the longest process id of Linux (man 5 proc, pid_max): as Ray names its sockets.
    socket = f"{longest}/lvray-{9_999_999_999}/session_2026-11-21_20-00-00_123456_{2**22}/sockets/plasma_store"
    assert len(socket) <= 107


def test_a_scratch_folder_must_be_the_same_everywhere():
    assert "must begin with /" in refused(csd3(scratch="scratch"))[0]


def test_a_machine_is_no_cluster():
    laptop = load_profile(str(ROOT / "cluster" / "laptop.yaml"))[0]
    told = refused(laptop, nodes=2, gpus_per_node=1)
    assert len(told) == 2
    assert refused(laptop, runs="/tmp/runs") == []  # here it is a folder like any other


def test_what_cannot_be_read_is_told_together_and_the_rest_is_judged():
    site = csd3(python="$NONE/python", scratch="$NOR/scratch")
    job, unread = readable(site, time="12h", runs="$NONE/runs", account="P-SL3-CPU", nodes=91)
    assert [line.split(": ")[0] for line in unread] == ["--time 12h", "runs", "scratch", "python"]
    told = refusals(site, job, cluster="x.yaml", here=Path("/home/ab123"))
    assert [line.split(":")[0] for line in told] == [
        "account P-SL3-CPU", "--nodes 91", "91 nodes × 4 GPUs",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "wishes", "expected"),
    [
        ({}, {"nodes": 2}, (8, "GPU")),
        ({}, {}, (1, "GPU")),
        ({"exclusive": True}, {}, (4, "GPU")),
        ({}, {"nodes": 2, "gpus_per_node": 0}, (256, "core")),
    ],
)
def test_what_a_site_counts_by_the_hour(changes, wishes, expected):
    assert charged(csd3(**changes), asked(csd3(**changes), **wishes)) == expected


@pytest.mark.parametrize(
    ("wishes", "expected"), [({}, 32), ({"gpus_per_node": 3}, 96), ({"gpus_per_node": 0}, 128)]
)
def test_cores_go_with_gpus(wishes, expected):
    assert cores(csd3(), asked(csd3(), **wishes)) == expected


def test_cores_without_a_number_for_each_gpu_are_the_gpus_share():
    profile = csd3(cores_per_gpu=None)
    assert cores(profile, asked(profile, gpus_per_node=2)) == 64


def test_an_exclusive_node_is_used_whole():
    profile = csd3(exclusive=True)
    assert cores(profile, asked(profile)) == 128


@pytest.mark.parametrize(
    ("device", "share", "wanted", "wishes", "expected"),
    [
        ("auto", 1, None, {"nodes": 2}, 8),
        ("cuda", 2, None, {"nodes": 2}, 16),
        ("auto", 2, 3, {"nodes": 2}, 3),
        ("auto", 1, 99, {"nodes": 2}, 8),
        ("cpu", 1, None, {}, 32),
        ("auto", 1, None, {"gpus_per_node": 0}, 128),
    ],
)
def test_trials_at_once(device, share, wanted, wishes, expected):
    job = asked(csd3(), **wishes)
    got = workers(csd3(), job, device=device, trials_per_gpu=share, wanted=wanted, cores_here=1)
    assert got == expected


def test_a_gpu_partition_is_not_asked_for_no_gpu():
    assert refused(csd3(), gpus_per_node=0) == [
        "--gpus-per-node 0: CSD3 ampere is for GPUs; take a profile of CPU nodes"
    ]
