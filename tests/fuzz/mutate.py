"""Mutations of files: bits and bytes of any, tokens and lines of text. The same random numbers, the same file."""

import re
from collections.abc import Callable
from random import Random

WORDS = [
    b"", b"null", b"true", b"[]", b"{}", b"-1", b"0", b"1e400", b".nan", b"NaN", b"-Infinity", b"1" * 400,
    b"9" * 5000, b"1" + b"0" * 20, b"0x" + b"f" * 4000, b"2.5", b'"\\ud800"', b'"a\\u0000b"', b"\\ud800.png", b"\0",
    b"../../x", b"/dev/zero", b"x" * 300, b"\xff\xfe", b"\xed\xa0\x80", b"[" * 2000, b"{a: " * 500, b"&a [*a]",
    b"!!python/object/apply:os.getcwd []", "é犬½²".encode(), b"\r\n", b'"', b"'", b"\t", b"7", b"1000000007",
]  # fmt: skip
INTEGERS = [0, 1, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]
TOKEN = re.compile(rb"-?\d+(?:\.\d+)?|[A-Za-z_]+|\"[^\"\n]*\"")


def mutate(data: bytes, random: Random) -> bytes:
    """One to four mutations, most often one."""
    textual = b"\0" not in data[:4000]
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = random.choice(OF_TEXT if textual and random.random() < 0.7 else OF_BYTES)(data, random)
    return data


def _place(data: bytes, random: Random) -> int:
    """Anywhere, half of the time near the start, where headers are."""
    return random.randrange(max(min(len(data), 200) if random.random() < 0.5 else len(data), 1))


def _flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(random.choice((1, 1, 3, 20))):
        changed[_place(changed, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _integer(data: bytes, random: Random) -> bytes:
    at, size = _place(data, random), random.choice((1, 2, 4, 8))
    value = random.choice(INTEGERS) % 256**size
    return data[:at] + value.to_bytes(size, random.choice(("little", "big"))) + data[at + size :]


def _cut(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + random.choice((1, 2, 16, 300)) :]


def _truncate(data: bytes, random: Random) -> bytes:
    return data[: random.choice((0, 1, _place(data, random), len(data) - 1))]


def _repeat(data: bytes, random: Random) -> bytes:
    at, size = _place(data, random), random.choice((1, 8, 64, 1000))
    return data[:at] + data[at : at + size] * random.choice((2, 2, 50)) + data[at:]


def _noise(data: bytes, random: Random) -> bytes:
    at, size = _place(data, random), random.choice((1, 4, 64))
    return data[:at] + random.randbytes(size) + data[at + random.choice((0, size)) :]


def _token(data: bytes, random: Random) -> bytes:
    """A number, a name or a string becomes another of the file, or one of WORDS."""
    tokens = list(TOKEN.finditer(data[:200_000]))
    if not tokens:
        return data + random.choice(WORDS)
    chosen, other = random.choice(tokens), random.choice(tokens)[0]
    return data[: chosen.start()] + random.choice((random.choice(WORDS), other)) + data[chosen.end() :]


def _line(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    lines[at : at + 1] = random.choice(
        ([], [lines[at]] * 2, [lines[at]] * 300, [random.choice(lines)], [b"", lines[at]])
    )
    return b"\n".join(lines)


Mutation = Callable[[bytes, Random], bytes]
OF_BYTES: tuple[Mutation, ...] = (_flip, _flip, _integer, _cut, _truncate, _repeat, _noise)
OF_TEXT: tuple[Mutation, ...] = (_token, _token, _token, _line, _flip)
