"""Unpack URL into DIRECTORY as it comes in, with libarchive."""

import os
import sys
import urllib.request

import libarchive
from libarchive.extract import EXTRACT_PERM, EXTRACT_TIME


def main(url: str, directory: str) -> None:
    os.chdir(directory)  # noqa: TID251 - libarchive unpacks where it is, and this process does nothing else
    with urllib.request.urlopen(url) as response, libarchive.stream_reader(response, block_size=1 << 20) as archive:
        libarchive.extract.extract_entries(archive, EXTRACT_PERM | EXTRACT_TIME)


if __name__ == "__main__":
    main(*sys.argv[1:])
