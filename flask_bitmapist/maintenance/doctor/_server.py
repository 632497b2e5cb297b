"""Whether the server is one that keeps what it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...config import Settings
from ...server import Facts, Replica
from ._findings import Finding, Level, sized
from ._nodes import Node

#: Shares of the memory from which there is a warning, and an error.
_TIGHT, _FULL = 0.8, 0.95
#: Seconds by which clocks may differ.
_SKEW = 2.0
#: Seconds for which a replica may be silent.
_LAG = 15


def connection(address: str, facts: Facts, latency: float, timeout: float) -> Iterator[Finding]:
    """Where the server is, what it is, and how long it takes to answer."""
    told = f"{address} answers in {1000 * latency:.1f} ms ({facts})"
    if latency > timeout / 2:
        yield Finding(
            "server",
            "warning",
            f"{told}, and BITMAPIST_TIMEOUT is {1000 * timeout:.0f} ms",
            "Bring the server nearer, raise BITMAPIST_TIMEOUT, or set BITMAPIST_DELIVERY to "
            "'background': marks that take longer go to the spool",
        )
    else:
        yield Finding("server", "ok", told)


def reading(replica: Replica) -> Finding:
    """Whether the replica that reports are read from hears its master."""
    if replica.connected:
        return Finding("server", "ok", f"reports are {replica}")
    advice = "Connect it to its master again, or leave out read_client meanwhile"
    return Finding("server", "warning", f"reports are {replica}", advice)


def check_all(nodes: Sequence[Node], settings: Settings) -> Iterator[Finding]:
    """What there is to say of the nodes; what holds for all of them is said once."""
    found: dict[Finding, list[str]] = {}
    for node in nodes:
        for finding in _check(node, settings):
            found.setdefault(finding, []).append(node.address)
    for finding, addresses in found.items():
        if len(nodes) == 1:
            yield finding
        elif len(addresses) == len(nodes):
            yield replace(finding, found=f"each node: {finding.found}")
        else:
            yield replace(finding, found=f"{', '.join(addresses)}: {finding.found}")


def _tell(level: Level, found: str, advice: str = "") -> Finding:
    return Finding("server", level, found, advice)


def _check(node: Node, settings: Settings) -> Iterator[Finding]:
    if hidden := node.hidden:
        yield _tell(
            "warning",
            f"the user may not use {', '.join(hidden)}, so some settings were not seen",
            "Grant the user +info +config|get +time, or look at the settings yourself: "
            "maxmemory-policy, appendonly, save, proto-max-bulk-len",
        )
    if node.info:
        for of_info in (_role, _eviction, _memory, _replicas):
            yield from of_info(node.info, settings)
        yield from _persistence(node)
    yield from _longest(node.config, settings)
    if node.skew is not None:
        yield clock(*node.skew)


def _role(info: Mapping[str, Any], settings: Settings) -> Iterator[Finding]:
    if info.get("role") == "slave":
        yield _tell(
            "error",
            "this is a replica, which takes no marks",
            "Let BITMAPIST_REDIS_URL lead to the master; for reports from a replica there is "
            "read_client",
        )


def _eviction(info: Mapping[str, Any], settings: Settings) -> Iterator[Finding]:
    policy, lost = str(info.get("maxmemory_policy", "")), int(info.get("evicted_keys", 0))
    found = f"maxmemory-policy is {policy}"
    if lost:
        found += f", and {lost:,} keys have been evicted"
    if policy.startswith("allkeys-"):
        limited = int(info.get("maxmemory", 0)) > 0
        yield _tell(
            "error" if limited or lost else "warning",
            found,
            "Set maxmemory-policy noeviction: a full server deletes bitmaps, and the keys that say "
            "whose bits they hold",
        )
    elif policy.startswith("volatile-") and settings.ttl:
        yield _tell(
            "warning",
            found,
            "Set maxmemory-policy noeviction: a full server deletes bitmaps that have a "
            "BITMAPIST_TTL too early",
        )
    elif policy:
        yield _tell("ok", found)


def _memory(info: Mapping[str, Any], settings: Settings) -> Iterator[Finding]:
    used, room = int(info.get("used_memory", 0)), room_of(info)
    if not room:
        return
    limit = "maxmemory" if int(info.get("maxmemory", 0)) else "the machine's memory"
    share = used / room
    found = f"{sized(used)} used, {100 * share:.0f}% of {limit} ({sized(room)})"
    if share < _TIGHT:
        yield _tell("ok", found)
    else:
        yield _tell(
            "error" if share >= _FULL else "warning",
            found,
            "Give it more memory, let old periods go (BITMAPIST_TTL, then flask bitmapist prune), "
            "or pack them (flask bitmapist pack): a full server refuses marks",
        )


def room_of(info: Mapping[str, Any]) -> int:
    """The bytes that a server may use; 0 if it does not say."""
    return int(info.get("maxmemory", 0)) or int(info.get("total_system_memory", 0))


def _replicas(info: Mapping[str, Any], settings: Settings) -> Iterator[Finding]:
    replicas = [told for name, told in info.items() if _is_replica(name, told)]
    for replica in replicas:
        silent = int(replica.get("lag", 0))
        if replica.get("state") != "online" or silent > _LAG:
            where = f"{replica.get('ip')}:{replica.get('port')}"
            yield _tell(
                "warning",
                f"the replica {where} is behind: {replica.get('state')}, silent for {silent} s",
                "See to it before a failover: what it has not heard would be lost",
            )


def _is_replica(name: str, told: object) -> bool:
    return name.startswith("slave") and name[5:].isdecimal() and isinstance(told, Mapping)


def _persistence(node: Node) -> Iterator[Finding]:
    info, save = node.info, node.config.get("save")
    failed = [
        name
        for name in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
        if info.get(name, "ok") != "ok"
    ]
    if failed:
        yield _tell(
            "error",
            f"it could not write to its disk ({', '.join(failed)})",
            "See its log, and make room on its disk: it may refuse marks until it can write",
        )
    if int(info.get("aof_enabled", 0)):
        yield _tell("ok", "appendonly is yes")
    elif save == "":
        yield _tell(
            "warning",
            "nothing is written to disk: appendonly is no, and there are no snapshots",
            "Set appendonly yes: a restart loses every mark",
        )
    elif "aof_enabled" in info:
        yield _tell(
            "warning",
            "appendonly is no" + (f", and snapshots are made: save {save}" if save else ""),
            "Set appendonly yes: a server that dies loses the marks made since the last snapshot",
        )


def _longest(config: Mapping[str, str], settings: Settings) -> Iterator[Finding]:
    limit = int(config.get("proto-max-bulk-len", 0))
    needed = settings.max_id // 8 + 1
    if limit and limit < needed and settings.id_map != "always":
        yield _tell(
            "error",
            f"proto-max-bulk-len is {limit:,} bytes, and a bitmap with the id BITMAPIST_MAX_ID has "
            f"{needed:,}",
            f"Set proto-max-bulk-len to {needed:,} or more, or BITMAPIST_MAX_ID to {8 * limit - 1}",
        )


def clock(ahead: float, inexact: float) -> Finding:
    """Whether the server's clock agrees with ours.

    :param ahead: seconds by which it is ahead.
    :param inexact: seconds by which `ahead` may be wrong.
    """
    if abs(ahead) - inexact <= _SKEW:
        return _tell("ok", "its clock agrees with ours")
    return _tell(
        "warning",
        f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} ours",
        "Let both machines follow NTP: marks are dated by the application's clock, and expire by "
        "the server's",
    )
