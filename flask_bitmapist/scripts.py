"""Scripts that servers run, and that they may have forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1
from typing import Any

from redis.exceptions import NoScriptError

from .trip import replies


class Script:
    """A script in Lua, which may be run twice with the same arguments."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def command(self, *, is_known: bool) -> tuple[str, str]:
        """What a command that runs it begins with.

        :param is_known: whether the server has it.
        """
        return ("EVALSHA", self._sha) if is_known else ("EVAL", self._text)

    def replies(self, client: Any, calls: Iterable[tuple[object, ...]]) -> list[Any]:
        """Its reply to each of `calls`: how many keys, the keys, and the arguments.

        :raises redis.ResponseError: if the server runs no scripts. Do not go by the error's text:
            servers without scripts, servers that forbid them, and proxies all word it differently.
        :raises redis.RedisError: if the server does not answer.
        """
        calls = [*calls]
        try:
            return replies(client, [(*self.command(is_known=True), *call) for call in calls])
        except NoScriptError:
            # Not SCRIPT LOAD: of a cluster whose nodes have changed, another one would get it.
            return replies(client, [(*self.command(is_known=False), *call) for call in calls])
