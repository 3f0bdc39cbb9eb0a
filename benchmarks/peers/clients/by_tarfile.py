"""Unpack URL into DIRECTORY as it comes in, with the standard library's tarfile and with zstandard."""

import sys
import tarfile
import urllib.request

import zstandard


def main(url: str, directory: str) -> None:
    with (
        urllib.request.urlopen(url) as response,
        zstandard.ZstdDecompressor().stream_reader(response) as plain,
        tarfile.open(fileobj=plain, mode="r|") as archive,
    ):
        archive.extractall(directory, filter="tar")


if __name__ == "__main__":
    main(*sys.argv[1:])
