"""`check` on a host: as the ExecReload= of the agent, and as root with the policy in place."""

from __future__ import annotations

from tests.machines.machine import Machine, wait_for
from tests.support.correction import ENFORCE, POLICY, entries

AGENT = "dockerd-guard.service"
BAD = f"{ENFORCE}moed: observe\n"


def test_reload_with_an_invalid_policy_fails_and_changes_nothing(machine: Machine) -> None:
    agent, dockerd = machine.main_pid(AGENT), machine.main_pid()
    shown = machine.run("dockerd-guard check").out
    assert shown.startswith(f"{POLICY} is valid.\nmode: observe: ")
    assert machine.run("dockerd-guard check --print | dockerd-guard check --print -").out \
        == machine.run("dockerd-guard check --print").out

    machine.write("/root/new.yaml", BAD)
    assert machine.run("dockerd-guard check /root/new.yaml", check=False).status == 2
    machine.run("cp /root/new.yaml " + POLICY)
    failed = machine.run("systemctl reload dockerd-guard", check=False)
    assert (failed.status, "systemctl status dockerd-guard.service" in failed.err) == (1, True), failed.err
    why = f"{POLICY}:{len(BAD.splitlines())}:1: unknown key 'moed'"
    machine.sync_journal()
    status = machine.run("systemctl status --full dockerd-guard", check=False).out
    assert f"dockerd-guard: {why}" in status, status
    wait_for(lambda: why in entries(machine, "policy")[-1]["MESSAGE"], "entry of the agent")

    # The text is valid, but another account could write it.
    machine.write("/root/loose.yaml", ENFORCE, mode=0o666)
    machine.run("mv /root/loose.yaml " + POLICY)
    refused = machine.run("dockerd-guard check", check=False)
    assert (refused.status, f"{POLICY}:1:1: writable by everyone (mode 0666)" in refused.err) == (2, True)
    assert machine.run("systemctl reload dockerd-guard", check=False).status == 1

    assert (machine.main_pid(AGENT), machine.main_pid()) == (agent, dockerd)
    machine.run(["chmod", "644", POLICY])
    machine.run("systemctl reload dockerd-guard")
    wait_for(lambda: "mode enforce" in entries(machine, "policy")[-1]["MESSAGE"], "valid policy in force")
    assert machine.main_pid(AGENT) == agent
