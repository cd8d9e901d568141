"""Inputs that fuzzing has found, as one file of text: a line of hexadecimal digits each, shortest first.

    pack.py pack FOLDER FILE      one line per file in the folder
    pack.py unpack FILE FOLDER    one file per line
"""

import pathlib
import sys


def pack(folder, file):
    inputs = sorted({path.read_bytes() for path in folder.iterdir()} - {b""}, key=lambda data: (len(data), data))
    file.write_text("".join(data.hex() + "\n" for data in inputs))


def unpack(file, folder):
    lines = file.read_text().split() if file.exists() else []
    for number, line in enumerate(lines):
        (folder / f"found{number}").write_bytes(bytes.fromhex(line))


if __name__ == "__main__":
    verb, source, destination = sys.argv[1:]
    {"pack": pack, "unpack": unpack}[verb](pathlib.Path(source), pathlib.Path(destination))
