"""Owns what errors of the transport are called in messages; what they mean is left to those who ask."""

from __future__ import annotations

import errno
import os

import aiohttp


def said(error: Exception) -> str:
    """The gist of an error of a request, on one line."""
    number = error.os_error.errno if type(error) is aiohttp.ClientConnectorError else None
    if number is not None and number in errno.errorcode:
        # The class tells where it wanted to connect to, which the message around this says already, and how.
        return os.strerror(number)
    text = " ".join(str(error).split())  # aiohttp draws a bad byte on lines of its own
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
