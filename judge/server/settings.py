"""Addresses and limits of the server, checked once."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass

from peav.errors import UserError, shown

MIB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """How `judge serve` listens and what it refuses.

    Together the limits bound what the process can be made to hold: at most ``pending`` requests at a time with
    ``upload_bytes`` each on the disk, and a few blocks of samples of each in memory.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    """What clients must send as ``Authorization: Bearer ...``; None lets everybody in who can connect."""
    upload_bytes: int = 64 * MIB
    """Of one request, all parts together."""
    seconds: float = 600.0
    """Length of one uploaded sound."""
    decoded_bytes: int = 512 * MIB
    """Of one uploaded sound as float32 samples: what a small file may unpack to."""
    targets: int = 16
    """Of one ranking."""
    prompt_characters: int = 500
    pending: int = 32
    """Requests between their first byte and their answer; more are told to come back later."""
    connections: int = 512
    """Open ones, idle ones included."""
    batch: int = 8
    """Requests that the model is given at once, at most."""
    batch_wait: float = 0.01
    """Seconds that a request may wait for others to share its batch."""
    upload_timeout: float = 60.0
    """Seconds within which the body has to arrive."""
    timeout: float = 120.0
    """Seconds from the end of the upload to the answer."""
    grace: float = 30.0
    """Seconds that running requests get when the server is stopped."""

    def __post_init__(self) -> None:
        """
        Raises:
            UserError: a limit that lets nothing through, or a token that no header can carry.
        """
        if not 0 <= self.port <= 65_535:
            raise UserError(f"port {self.port} does not exist; give 1 to 65535, or 0 for any free one")
        sizes = ("upload_bytes", "decoded_bytes", "targets", "prompt_characters", "pending", "connections", "batch")
        for name in sizes:
            if getattr(self, name) < 1:
                raise UserError(f"{_words(name)} is {getattr(self, name)}; give at least 1")
        for name in ("seconds", "upload_timeout", "timeout", "grace", "batch_wait"):
            value, zero = getattr(self, name), name in ("batch_wait", "grace")
            if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
                raise UserError(f"{_words(name)} is {value}; give {'0 or more' if zero else 'more than 0'} seconds")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise UserError("the token is empty or not plain ASCII; choose letters and digits, for example 32 of them")
        if self.token is not None and any(letter.isspace() for letter in self.token):
            raise UserError("the token holds a space, which no header can carry; choose letters and digits")

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def address(self) -> str:
        """For messages: ``127.0.0.1:8000``."""
        host = shown(self.host, 60)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


def _words(name: str) -> str:
    return "the limit on " + name.replace("_", " ")
