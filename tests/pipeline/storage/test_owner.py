"""Whether the owner of a lock has ended: known on this machine alone, and never by the host's name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from colophon.pipeline.storage.owner import Owner, this_machine
from colophon.shards.common.file_locks import user_name

pytestmark = pytest.mark.skipif(not this_machine(), reason="the system does not show its boot and process namespaces")


@pytest.fixture(scope="module")
def ended() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def test_this_process_is_alive_and_describes_itself() -> None:
    owner = Owner.this_process()
    assert not owner.is_dead
    assert owner.describe() == f"process {os.getpid()} on {owner.host}, user {user_name(os.getuid())}, since 0:00:00"
    assert Owner.model_validate_json(owner.model_dump_json()) == owner


def test_a_process_of_this_machine_that_has_ended(ended: int) -> None:
    assert Owner.this_process().model_copy(update={"pid": ended}).is_dead


def test_a_later_process_with_the_same_id() -> None:
    here = Owner.this_process()
    assert here.started is not None
    assert here.model_copy(update={"started": here.started - 1}).is_dead
    assert not here.model_copy(update={"started": None}).is_dead


def test_another_container_or_boot_of_the_same_host_is_never_taken_for_dead(ended: int) -> None:
    here = Owner.this_process()
    boot, namespace = here.machine.split()
    for machine in ("", f"{boot} pid:[1]", f"{boot[:-1]}x {namespace}"):
        assert not here.model_copy(update={"pid": ended, "machine": machine}).is_dead


def test_the_lock_of_an_older_version(ended: int) -> None:
    here = Owner.this_process()
    older = Owner.model_validate({"host": here.host, "pid": ended, "since": 0.0, "token": "t", "beat": 3})
    assert not older.is_dead
    assert "user" not in older.describe()


def test_the_process_namespace_of_a_container(ended: int) -> None:
    """In a namespace of its own a process has a different machine, although boot and host are the same."""
    code = "from colophon.pipeline.storage.owner import this_machine; print(this_machine())"
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    try:
        called = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    except FileNotFoundError:
        pytest.skip("no unshare")
    if called.returncode:
        pytest.skip(called.stderr)
    other = called.stdout.strip()
    assert other.split()[0] == this_machine().split()[0]
    assert other != this_machine()
