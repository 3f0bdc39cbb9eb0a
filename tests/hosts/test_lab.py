"""The lab itself: whatever becomes of a test, nothing of its hosts is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from tests.consul_process import wait_until
from tests.hosts.lab import Lab
from tests.hosts.machine import Machine
from tests.hosts.readme import CHECKOUT

VICTIM = """
import sys
from tests.hosts.lab import Lab
from tests.hosts.machine import Machine
with Lab() as lab:
    machine = Machine(lab, "victim", number=50)
    machine.boot()
    print(lab.pid, machine.pid, lab.group, flush=True)
    sys.stdin.read()
"""


def test_a_killed_test_leaves_nothing(lab: Lab) -> None:
    """No process, and so no name space, mount or cable; and no control group."""
    argv = [sys.executable, "-c", VICTIM]
    with subprocess.Popen(argv, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        first, machine, group = victim.stdout.readline().split()
        processes = [psutil.Process(int(first)), psutil.Process(int(machine))]
        processes += processes[1].children(recursive=True)
        assert len(processes) >= 4  # systemd, its journal, and more
        cgroup = Path(f"/proc/{lab.pid}/root/mnt/cgroup/{group}")
        assert cgroup.is_dir()
        victim.kill()
        victim.wait()
    wait_until(
        lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes),
        "all have ended",
    )
    wait_until(lambda: not cgroup.exists(), "the control group is gone")


def test_a_machine_cannot_touch_this_one(lab: Lab) -> None:
    """What its root does to devices, settings of the kernel, /tmp and files stays there."""
    before = [(path, Path(path).stat().st_mode) for path in ("/dev/null", "/dev/tty", "/tmp")]
    machine = Machine(lab, "guest", number=51)
    machine.boot()
    machine.run("sh", "-c", "chmod 600 /dev/null /tmp; touch /tmp/from-guest /etc/from-guest; rm /etc/os-release")
    assert machine.try_run("sh", "-c", "echo 1 > /proc/sys/vm/swappiness").returncode != 0
    assert machine.try_run("sh", "-c", "echo > /sys/class/net/lo/ifalias").returncode != 0
    assert [(path, Path(path).stat().st_mode) for path, _ in before] == before
    assert not Path("/tmp/from-guest").exists()
    assert not Path("/etc/from-guest").exists()
    assert Path("/etc/os-release").exists()
