"""What is told of a soak: its report in short, and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_TRAIL = 40


def trail(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a run told at last, for whoever looks for the cause of a problem: all but the status, and the last of it."""
    told = [event for event in events if event["event"] != "status"]
    return told[-_TRAIL:] + [event for event in events if event["event"] == "status"][-2:]


def in_short(ledger: dict[str, Any]) -> dict[str, Any]:
    """What a report says of a camera's ledger."""
    names = ("seen", "missing", "published", "lost", "in_flight", "balanced")
    outage_s = sum(outage["duration_s"] for outage in ledger["outages"])
    counts = {"segments": len(ledger["segments"]), "outages": len(ledger["outages"]), "outage_s": round(outage_s, 1)}
    return {**{name: ledger[name] for name in names}, **counts}


def sums(accounts: Sequence[dict[str, Any]]) -> dict[str, int]:
    """What a report says of the subscribers of a name, which came one after the other."""
    names = ("received", "missed", "lapped", "wrong", "overwritten")
    return {"processes": len(accounts), **{name: sum(account[name] for account in accounts) for name in names}}


def print_report(report: dict[str, Any], problems: Sequence[str]) -> None:
    """Prints a report, and what should not have been."""
    print(f"frames     {report['frames']} in {report['seconds']:g} s, seed {report['seed']}")
    print(f"faults     {', '.join(f'{name} {count}' for name, count in report['faults'].items())}")
    for camera, account in report["cameras"].items():
        lost = ", ".join(f"{reason} {count}" for reason, count in account["lost"].items() if count)
        balance = "balances" if account["balanced"] else "DOES NOT BALANCE"
        print(
            f"camera {camera}   seen {account['seen']} + missing {account['missing']} = published "
            f"{account['published']} + lost ({lost}): {balance}; {account['segments']} segments"
        )
    for name, counts in report["subscribers"].items():
        print(f"  {name:10s} " + ", ".join(f"{what} {count}" for what, count in counts.items()))
    for name in ("main", "all", "descriptors", "processes"):
        if told := report["memory"].get(name):
            print(f"  {name:12s} {told['first']:.0f} at first, {told['last']:.0f} at last, highest {told['highest']}")
    for problem in problems:
        print(f"  PROBLEM: {problem}")
