"""The status viewer: shows what the main process tells it, one JSON object a line on stdin, until stdin ends.

Started as `python -m ispeed.stream.status live|plain|json`. A process of its own, so that drawing, or a terminal that
is not read, never holds up a frame.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_PR_SET_PDEATHSIG = 1


def started_line(message: dict[str, Any]) -> str:
    """What runs, in one line."""
    g, engine = message["geometry"], message["engine"]
    no_rate = "as fast as it is taken" if g["acquisition"] == "replay" else "triggered or free-running"
    fps = f"{g['fps']:g} fps" if g["fps"] else no_rate
    return (
        f"camera {g['camera']} {g['model']} {g['serial']}: {g['width']}x{g['height']} {g['pixel_format']}, {fps}, "
        f"{g['acquisition']} | engine {engine['name']} ({engine['backend']} {engine['precision']}) | "
        f"{message['slots']} slots | {', '.join(message['endpoint'])}"
    )


def status_line(message: dict[str, Any]) -> str:
    """Rates, losses, latency and bottleneck in one line."""
    r, latency = message["rates"], message["latency_ms"]
    limit = f"limit: {message['bottleneck']} | " if message["bottleneck"] else ""
    return (
        f"{message['t_s']:7.1f} s | camera {r['camera']:.0f} grab {r['grab']:.0f} develop {r['develop']:.0f} "
        f"publish {r['publish']:.0f} Hz | lost {losses(message['account']['lost'])}{late(message['account'])} | "
        f"{latency['from']} to published "
        f"p50 {latency['p50']:.2f} p99 {latency['p99']:.2f} ms | {limit}"
        f"subscribers {message['subscribers'].get('descriptors', 0)}+{message['subscribers'].get('pixels', 0)}"
        + _recording(message.get("record", {}))
        + troubles(message.get("stages", {}))
    )


def troubles(stages: dict[str, dict[str, Any]]) -> str:
    """ " | develop stuck for 3 s": the stages that neither work nor idle, if there are any."""
    return "".join(
        f" | {name} {told['state']} for {told['for_s']:.0f} s"
        for name, told in stages.items()
        if told["state"] not in ("working", "idle")
    )


def _recording(record: dict[str, Any]) -> str:
    if record.get("state") != "recording":
        return ""
    frames = "+".join(str(count) for count in record.get("frames", {}).values()) or "0"
    return f" | recording {frames} frames"


def losses(lost: dict[str, int]) -> str:
    """'0', or the total and each reason that counts."""
    total = sum(lost.values())
    if not total:
        return "0"
    return f"{total} ({', '.join(f'{reason} {count}' for reason, count in lost.items() if count)})"


def late(account: dict[str, Any]) -> str:
    """How many of the lost came behind newer frames, as ', 3 of them late'; empty where none did."""
    return f", {account['late']} of them late" if account.get("late") else ""


def ledger_lines(message: dict[str, Any]) -> list[str]:
    """The account at the end."""
    ledger, latency = message["ledger"], message["latency_ms"]
    balance = "the account balances" if ledger["balanced"] else "THE ACCOUNT DOES NOT BALANCE"
    lines = [
        f"seen {ledger['seen']} + missing {ledger['missing']} = published {ledger['published']} + "
        f"lost {losses(ledger['lost'])}{late(ledger)}: {balance}",
        f"latency {latency['from']} to published: p50 {latency['p50']:.2f}, p99 {latency['p99']:.2f}, "
        f"p99.9 {latency['p999']:.2f}, max {latency['max']:.2f} ms ({latency['count']} frames)",
    ]
    segments, earlier = ledger["segments"], ledger.get("earlier")
    if len(segments) > 1 or ledger["outages"]:
        before = f", and {earlier['segments']} earlier ones" if earlier else ""
        lines.append(f"{len(segments)} segments{before}:")
        for s in segments:
            account = s["account"]
            lines.append(
                f"  {s['number']}: {s['duration_s']:.2f} s, seen {account['seen']}, missing {account['missing']}, "
                f"published {account['published']}, lost {losses(account['lost'])}{late(account)}; "
                f"ended by: {s['ended_by']}"
            )
        for outage in ledger["outages"]:
            lines.append(
                f"  outage of {outage['duration_s']:.2f} s, about {outage['estimated_frames']} frames not taken"
            )
    return lines


def lines_of(message: dict[str, Any]) -> list[str]:
    """The lines that a message is shown as."""
    event = message["event"]
    if event == "started":
        return [started_line(message)]
    which = f"camera {message['camera']}: " if message.get("several") else ""
    if event == "status":
        return [which + status_line(message)]
    if event == "final":
        first, *others = ledger_lines(message)
        return [which + first, *others]
    return [which + message.get("text", event)]


def _messages() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line of stdin and its message, without those of which only a part came."""
    for line in sys.stdin:
        with suppress(ValueError):
            yield line, json.loads(line)


def show_plain() -> None:
    """Every message as lines."""
    for _, message in _messages():
        sys.stdout.write("\n".join(lines_of(message)) + "\n")
        sys.stdout.flush()


def show_json() -> None:
    """Every message as it came."""
    for line, _ in _messages():
        sys.stdout.write(line)
        sys.stdout.flush()


def show_live() -> None:
    """The status in place, everything else above it."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    statuses: dict[int, str] = {}  # by camera
    with Live(Text("starting"), console=console, auto_refresh=False, transient=True) as live:
        for _, message in _messages():
            if message["event"] == "status":
                statuses[message.get("camera", 0)] = lines_of(message)[0]
                live.update(Text("\n".join(statuses.values())), refresh=True)
            else:
                for text in lines_of(message):
                    console.print(Text(text))


def main() -> int:
    """Shows stdin in the style named on the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends by Ctrl-C and tells us
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        {"live": show_live, "plain": show_plain, "json": show_json}[sys.argv[1]]()
    except BrokenPipeError:  # our reader left (`| head`): nothing more to show, and nothing to flush at exit
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
