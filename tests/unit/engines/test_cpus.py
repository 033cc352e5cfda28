"""The CPUs that a process may use are those of its machine, or fewer if its control groups have a quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from speedy_utils._engines.cpus import cpus

V1 = "31 23 0:28 {root} /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
V2 = "31 23 0:28 {root} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
OTHERS = (
    "23 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    "32 23 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "a line that is none\n"
)


@pytest.fixture(autouse=True)
def many_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine have 96 CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)), raising=False)


def machine(root: Path, group: str, mounts: str, files: dict[str, str]) -> Path:
    """Make the files of a machine, and return their folder."""
    texts = {"proc/self/cgroup": group, "proc/self/mountinfo": OTHERS + mounts, **files}
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def v1(folder: str, quota: str, period: str = "100000") -> dict[str, str]:
    """Return the files of a group of cgroup v1."""
    top = f"sys/fs/cgroup/cpu/{folder}".rstrip("/")
    return {f"{top}/cpu.cfs_quota_us": f"{quota}\n", f"{top}/cpu.cfs_period_us": f"{period}\n"}


def v2(folder: str, text: str) -> dict[str, str]:
    """Return the file of a group of cgroup v2."""
    return {f"sys/fs/cgroup/{folder}".rstrip("/") + "/cpu.max": f"{text}\n"}


IN_DOCKER = "5:cpuset:/docker/1f\n4:cpu,cpuacct:/docker/1f\n"


@pytest.mark.parametrize(
    ("group", "mounts", "files", "found"),
    [
        pytest.param("0::/\n", V2.format(root="/"), v2("", "200000 100000"), 2, id="v2"),
        pytest.param("0::/\n", V2.format(root="/"), v2("", "max 100000"), 96, id="v2 without a quota"),
        pytest.param("0::/\n", V2.format(root="/"), v2("", "150000"), 2, id="v2 without a period"),
        pytest.param("0::/\n", V2.format(root="/"), v2("", "10000 100000"), 1, id="a tenth of a CPU"),
        pytest.param("0::/\n", V2.format(root="/"), v2("", "250000 100000"), 3, id="two and a half"),
        pytest.param("0::/\n", V2.format(root="/"), v2("", "0 100000"), 1, id="none at all"),
        pytest.param("0::/\n", V2.format(root="/"), v2("", "9900000 100000"), 96, id="more than there are"),
        pytest.param(
            "0::/user.slice/job.scope\n",
            V2.format(root="/"),
            v2("user.slice/job.scope", "800000 100000") | v2("user.slice", "300000 100000"),
            3,
            id="v2, less around it",
        ),
        pytest.param(
            "0::/a/b\n",
            V2.format(root="/"),
            v2("a/b", "max 100000") | v2("a", "400000 100000"),
            4,
            id="v2, only around it",
        ),
        pytest.param(
            "0::/docker/1f\n", V2.format(root="/docker/1f"), v2("", "200000 100000"), 2, id="v2 of a host"
        ),
        pytest.param(
            "0::/../x\n", V2.format(root="/docker/1f"), v2("", "200000 100000"), 2, id="v2 elsewhere"
        ),
        pytest.param(IN_DOCKER, V1.format(root="/docker/1f"), v1("", "150000"), 2, id="v1 of a host"),
        pytest.param(IN_DOCKER, V1.format(root="/"), v1("docker/1f", "250000", "50000"), 5, id="v1"),
        pytest.param(IN_DOCKER, V1.format(root="/"), v1("docker/1f", "-1"), 96, id="v1 without a quota"),
        pytest.param(
            IN_DOCKER,
            V1.format(root="/"),
            v1("docker/1f", "-1") | v1("docker", "600000") | v1("", "-1"),
            6,
            id="v1, only around it",
        ),
        pytest.param(
            IN_DOCKER + "0::/\n",
            V1.format(root="/") + V2.format(root="/").replace("cgroup rw", "cgroup/unified rw"),
            v1("docker/1f", "300000"),
            3,
            id="v1 beside v2",
        ),
        pytest.param("0::/\n", V2.format(root="/"), v2("", "two CPUs"), 96, id="words"),
        pytest.param("0::/\n", V2.format(root="/"), v2("", ""), 96, id="an empty file"),
        pytest.param("0::/\n", V2.format(root="/"), v2("", "100000 0"), 96, id="a period of nothing"),
        pytest.param(IN_DOCKER, V1.format(root="/"), {}, 96, id="no files"),
        pytest.param("no group", "", {}, 96, id="no groups"),
    ],
)
def test_a_quota_limits_the_cpus(
    tmp_path: Path, group: str, mounts: str, files: dict[str, str], found: int
) -> None:
    """The smallest quota of the process's groups counts, rounded up; what can't be read limits nothing."""
    assert cpus(machine(tmp_path, group, mounts, files)) == found


def test_without_control_groups_all_cpus_count(tmp_path: Path) -> None:
    """Where there is no such file, as on other systems than Linux, and where they are no text."""
    assert cpus(tmp_path) == 96
    (tmp_path / "proc/self").mkdir(parents=True)
    for name in ("cgroup", "mountinfo"):
        (tmp_path / "proc/self" / name).write_bytes(b"\xff\xfe 0::/")
    assert cpus(tmp_path) == 96
