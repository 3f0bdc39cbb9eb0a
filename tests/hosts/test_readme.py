"""A newcomer follows README's ten steps on a fresh machine, word by word, and ends with a deploy that works."""

from __future__ import annotations

from tests.consul_process import find_consul
from tests.hosts.fleet import Fleet
from tests.hosts.installed import give_wheels
from tests.hosts.lab import Lab
from tests.hosts.machine import Machine
from tests.hosts.readme import CHECKOUT, ten_steps

STEP_S = 300.0


def test_the_ten_steps_work_as_they_are_written(lab: Lab, fleet: Fleet) -> None:
    machine = Machine(lab, "fresh", number=100)
    give_wheels(machine)
    machine.boot()
    consul = ["-data-dir=/var/lib/consul", "-node=fresh", f"-bind={machine.address}", "-retry-interval=1s"]
    machine.run(
        "systemd-run", "--unit=consul", "-p", "Type=notify", str(find_consul()), "agent", *consul, *fleet.cluster.joins
    )
    steps = ten_steps()
    script = "".join(f"echo '== step {number}'\n{steps[number]}" for number in sorted(steps))
    told = machine.run("bash", "-ec", script, cwd=str(CHECKOUT), timeout_s=STEP_S)
    said = {int(part.split("\n", 1)[0]): part.split("\n", 1)[1] for part in told.split("== step ")[1:]}
    assert sorted(said) == list(range(1, 11))
    assert "steady" in said[7]
    assert [line for line in said[9].splitlines() if line in {"first", "second"}] == ["first", "second"]
    assert "first" in said[10].splitlines()
    assert "fresh" in said[10]
    assert machine.run("systemctl", "is-enabled", "hotcold-agent@shop").strip() == "enabled"
