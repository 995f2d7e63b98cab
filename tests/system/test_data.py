"""The expected values in tests/data match the real systemd. `python3 -m tests.data.renew` renews them."""

from __future__ import annotations

from tests.data.renew import differing, systemd_answers
from tests.machines.machine import Machine
from tests.support.vectors import documents


def test_vectors_match_systemd(bare_machine: Machine) -> None:
    wrong = differing(systemd_answers(bare_machine), documents("systemd"), bare_machine.release)
    assert not wrong, "\n".join(wrong)
