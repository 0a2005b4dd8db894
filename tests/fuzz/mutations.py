"""Seeded damage: of bytes, of numbers that say lengths, and of what a format is made of, with its checksums right."""

import base64
import gzip
import io
import json
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from pcamjax.isolation import Isolated, UnreadableError

LENGTHS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
# What a format keeps at its beginning and end weighs more than the values between.
EDGE = 4096


def mutate(rng: random.Random, name: str, content: bytes, others: list[bytes]) -> bytes:
    """Damages a file of this name: its structure, its bytes, or first one and then the other."""
    structure = STRUCTURES.get(name[name.rfind("."):])
    if structure and rng.random() < 0.6:
        content = structure(rng, content)
        if rng.random() < 0.7:
            return content
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        content = damage_bytes(rng, content, others)
    return content


def damage_bytes(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """One flip, cut, insertion, copy, splice with another file, or edit of a number that may be a length."""
    if not content:
        return rng.randbytes(rng.randrange(64))
    at = rng.randrange(len(content))
    if len(content) > 2 * EDGE and rng.random() < 0.8:
        at = rng.randrange(EDGE) if rng.random() < 0.5 else len(content) - 1 - rng.randrange(EDGE)
    length = rng.choice((1, 2, 4, 8, 16, 64, 512))
    kind = rng.randrange(9)
    if kind == 0:  # a bit
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1:]
    if kind == 1:  # bytes
        return content[:at] + rng.randbytes(length) + content[at + length:]
    if kind == 2:
        return content[:at] + bytes([rng.choice((0, 255))]) * length + content[at + length:]
    if kind == 3:
        return content[:at]
    if kind == 4:
        return content[:at] + rng.randbytes(length) + content[at:]
    if kind == 5:
        return content[:at] + content[at + length:]
    if kind == 6:
        begin = rng.randrange(len(content))
        return content[:at] + content[begin:begin + length] + content[at:]
    if kind == 7:
        other = rng.choice(others)
        return content[:at] + other[rng.randrange(len(other) + 1):]
    form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    size = struct.calcsize(form)
    field = content[at:at + size].ljust(size, b"\0")
    value = rng.choice((*LENGTHS, struct.unpack(form, field)[0] + rng.choice((-1, 1, 8)), len(content)))
    return content[:at] + struct.pack(form, value % 2 ** (8 * size)) + content[at + size:]


# JSON

def odd_value(rng: random.Random) -> Any:
    """A JSON value of a kind that nobody expects."""
    return rng.choice((None, True, 0, -1, 1.5, 1e308, 2**63, 10**400, "", "x", "\ud800", "\x1b[2J", "a\nb", [], {},
                       [[]], {"a": {}}, float("nan"), float("inf"), "9" * 5000, [None] * 100, "../../etc/passwd"))


def damage_json(rng: random.Random, content: bytes) -> bytes:
    """Another value, a key less or more, or hundreds of levels, anywhere in the tree."""
    if rng.random() < 0.05:
        depth = rng.choice((10, 100, 500, 5000, 200_000))
        return (b"[" * depth + b"]" * depth) if rng.random() < 0.5 else b'{"a":' * depth + b"1" + b"}" * depth
    try:
        tree = json.loads(content)
    except ValueError:
        return content
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    if not isinstance(tree, dict | list) or not tree:
        return json.dumps(odd_value(rng)).encode()
    walk(tree)
    for _ in range(rng.choice((1, 1, 2, 5))):
        node, key = rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0 and isinstance(node, dict):
            node.pop(key, None)
        elif kind == 1 and isinstance(node, dict):
            node[rng.choice(("x", "", "a.b", "__class__", "name", "\ud800"))] = odd_value(rng)
        elif kind == 2 and isinstance(node, dict):
            node[key] = rng.choice(list(node.values()) or [0])
        elif kind == 3:
            return json.dumps(odd_value(rng)).encode() if rng.random() < 0.05 else json.dumps(tree).encode()
        elif isinstance(node, dict) or key < len(node):
            node[key] = odd_value(rng)
    return json.dumps(tree).encode()


def damage_lines(rng: random.Random, content: bytes) -> bytes:
    """As `damage_json`, in a file with an object a line."""
    lines = content.split(b"\n")
    row = rng.randrange(len(lines))
    lines[row] = damage_json(rng, lines[row])
    return b"\n".join(lines)


# CSV

def damage_csv(rng: random.Random, content: bytes) -> bytes:
    """Other fields, lines or separators."""
    rows = [line.split(b",") for line in content.split(b"\n")]
    odd = (b"", b'"', b'"a', b"0", b"2", b"../../etc/passwd", b"/etc/passwd", b"..", b".", b"a" * 300, b"a" * 5000,
           b"a" * 200_000, b"\0", b"\xff", "\ufeff".encode(), b"\r", b"\x1b[2J", b"a\x00.png", b"NaN", b"\xed\xa0\x80")
    for _ in range(rng.choice((1, 1, 2, 4))):
        row = rng.choice(rows)
        kind = rng.randrange(6)
        if kind == 0:
            row[rng.randrange(len(row))] = rng.choice(odd)
        elif kind == 1:
            row.insert(rng.randrange(len(row) + 1), rng.choice(odd))
        elif kind == 2 and len(row) > 1:
            row.pop()
        elif kind == 3:
            rows.insert(rng.randrange(len(rows)), list(rng.choice(rows)))
        elif kind == 4:
            rows.insert(rng.randrange(len(rows)), [b"x"] * rng.choice((1, 2, 200, 5000)))
        else:
            row[rng.randrange(len(row))] = rng.choice(rng.choice(rows))
    return rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\n\n")).join(b",".join(row) for row in rows)


# NumPy's arrays and archives

def damage_npy(rng: random.Random, content: bytes) -> bytes:
    """Another header before the values, of the length that it says itself."""
    if len(content) < 10 or content[:6] != b"\x93NUMPY":
        return content
    end = 10 + struct.unpack("<H", content[8:10])[0]
    header, values = content[10:end].decode("latin-1"), content[end:]
    numbers = re.search(r"\(([\d, ]*)\)", header)
    kind = rng.randrange(6)
    if kind == 0 and numbers:
        shape = rng.choice(("(0,)", "(1,)", "()", "(10000000000000,)", "(-1,)", "(4294967296, 4294967296)", "(1e3,)",
                            f"({'1, ' * 40})", f"({numbers[1]}, 2)", "(True,)", f"({'9' * 4000},)"))
        header = header.replace(numbers[0], shape)
    elif kind == 1:
        descr = rng.choice(("'|O'", "'<U255'", "'<U4000000000'", "'|V8'", "'<f4'", "'>U4'", "'<M8[ns]'", "'|S0'",
                            "'<x9'", "[('a', '|O')]", "[" * 500, "'<f4, <f4'", "__import__('os').getcwd()",
                            "-" * 3000 + "1",
                            "'|i1'", "'<c16'", "'<U0'", "'|u1'"))
        header = re.sub(r"'descr': ('[^']*'|\[.*?\])", lambda _: f"'descr': {descr}", header)
    elif kind == 2:
        header = header.replace("False", rng.choice(("True", "0", "None", "[]")))
    elif kind == 3:
        header = "".join(rng.choice("{}[]()'\",: \n1aéØ") if rng.random() < 0.1 else c for c in header)
    elif kind == 4:
        values = rng.choice((b"", values * 2, rng.randbytes(len(values)), values[:-1], b"\xff" * len(values)))
    else:
        return content[:6] + bytes([rng.randrange(4), rng.randrange(2)]) + content[8:]
    encoded = header.encode("latin-1")
    return content[:8] + struct.pack("<H", len(encoded) % 65536) + encoded + values


def damage_zip(rng: random.Random, content: bytes) -> bytes:
    """An archive with other members, each with the checksum it needs; or with other numbers in its directory."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # the archive was no longer one
        return content
    if rng.random() < 0.3:
        signature = rng.choice((b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))
        places = [match.start() for match in re.finditer(re.escape(signature), content)] or [0]
        at = rng.choice(places) + rng.randrange(4, 46)
        form = rng.choice(("<H", "<I"))
        return content[:at] + struct.pack(form, rng.choice(LENGTHS) % 2 ** (8 * struct.calcsize(form))) + content[
            at + struct.calcsize(form):]
    name = rng.choice(list(members) or ["x.npy"])
    kind = rng.randrange(7)
    if kind == 0:
        members.pop(name, None)
    elif kind == 1:
        members[rng.choice(("../../evil.npy", "/tmp/evil.npy", "x.npy", "format.npy", "a/" * 100, "\u202e.npy"))] = (
            members.get(name, b""))
    elif kind == 2:
        members[name] = bytes(rng.choice((0, 1000, 1 << 20, 1 << 24)))
    elif kind == 3 and len(members) > 1:
        members[name] = members[rng.choice(list(members))]
    elif name in members:
        inner = STRUCTURES.get(name[name.rfind("."):], lambda rng, inside: damage_bytes(rng, inside, [inside]))
        members[name] = inner(rng, members[name])
    packed = io.BytesIO()
    compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2,
                              zipfile.ZIP_LZMA))
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", compression, compresslevel=1) as archive:
        warnings.simplefilter("ignore")  # a name that stands there twice
        for member, inside in members.items():
            archive.writestr(member, inside)
        if rng.random() < 0.1:
            archive.writestr(name, b"twice")
    return packed.getvalue()


def damage_gzip(rng: random.Random, content: bytes) -> bytes:
    """What is inside, damaged and packed again."""
    try:
        inside = gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return content
    if rng.random() < 0.05:
        return gzip.compress(inside + bytes(1 << 24), 1)
    return gzip.compress(mutate(rng, ".h5", inside, [inside]), 1)


# HDF5

def damage_hdf5(rng: random.Random, content: bytes) -> bytes:
    """Rewrites objects of a file with HDF5 itself, which does not always live through it, in a process of its own."""
    seed = rng.randrange(2**32)
    try:
        with Isolated("fuzz.mutations:Hdf5Damage") as damage:
            return base64.b64decode(damage.call("rewrite", seed, payload=content))
    except UnreadableError:
        return damage_bytes(rng, content, [content])


class Hdf5Damage:
    """Other shapes, types, chunks, filters, links and attributes."""

    def rewrite(self, seed: int, content: bytes) -> str:
        """The damaged file in base 64."""
        rng, stored = random.Random(seed), io.BytesIO(content)
        try:
            with h5py.File(stored, "r+") as file:
                names: list[str] = []
                file.visit(names.append)
                for _ in range(rng.choice((1, 1, 2, 3))):
                    _damage_object(rng, file, rng.choice(names or ["x"]), names)
        except Exception:  # HDF5 itself objects: what it has written so far is damaged enough
            pass
        return base64.b64encode(stored.getvalue()).decode()


def _damage_object(rng: random.Random, file: h5py.File, name: str, names: list[str]) -> None:
    node = file.get(name)
    values = node[()] if isinstance(node, h5py.Dataset) else np.zeros((2, 3), np.uint8)
    parent = name.rpartition("/")[0] or "/"
    kind = rng.randrange(12)
    if kind == 0:  # an attribute
        attribute = rng.choice((*node.attrs, "name", "layer_names", "weight_names"))
        node.attrs[attribute] = rng.choice((3.5, "x", b"x", [b"a", b"b"], ["\u00e9", "b"], np.zeros(3), np.void(b"abc"),
                                            h5py.Empty("S1"), file.ref, np.full(30_000, b"x"), ["x\n"], [b"\xff\xfe"]))
        return
    if kind == 1:
        file[f"{parent}/{rng.choice(('extra', '..', 'vars', 'x'))}"] = values
        return
    if kind == 2:
        file[f"{parent}/loop"] = rng.choice((file["/"], node))  # a hard link, also to what contains it
        return
    if name in file:
        del file[name]
    if kind == 3:
        file[name] = h5py.ExternalLink(rng.choice(("/etc/passwd", "other.h5", "valid_y.h5")), rng.choice(("x", "/")))
    elif kind == 4:
        file[name] = h5py.SoftLink(rng.choice(("/", *(f"/{other}" for other in names))))
    elif kind == 5:
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[...] = h5py.VirtualSource("other.h5", "x", values.shape)
        file.create_virtual_dataset(name, layout)
    elif kind == 6:
        file.create_dataset(name, values.shape, values.dtype, external=[("secret.raw", 0, h5py.h5f.UNLIMITED)])
    elif kind == 7:
        shape = rng.choice(((), (0,), (1,), (2**40,), values.shape[::-1], (*values.shape, 1), (2, 96, 96, 3, 2**30)))
        file.create_dataset(name, shape, values.dtype, chunks=True if len(shape) else None)
    elif kind == 8:
        dtype = rng.choice((np.float16, np.float32, ">f8", np.int64, "S5", h5py.string_dtype(), h5py.ref_dtype, bool,
                            np.dtype([("a", "f4"), ("b", "i8")]), h5py.vlen_dtype(np.int32), np.complex64, "V7",
                            h5py.enum_dtype({"a": 1}, "u1")))
        file.create_dataset(name, values.shape, dtype)
    elif kind == 9:
        chunks = tuple(max(1, rng.choice((1, 2, size or 1))) for size in values.shape)
        options = rng.choice(({"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True}, {"fletcher32": True},
                              {"scaleoffset": 2}, {"compression": "gzip", "shuffle": True, "fletcher32": True}))
        data = file.create_dataset(name, data=values, chunks=chunks, maxshape=(None,) * values.ndim, **options)
        if rng.random() < 0.5:  # a chunk that unpacks to something else, to a lot, or to nothing
            bomb = rng.choice((zlib.compress(bytes(1 << 24)), b"", rng.randbytes(100), zlib.compress(b"short")))
            data.id.write_direct_chunk((0,) * values.ndim, bomb)
    elif kind == 10:
        file.create_group(name)["x"] = values
    else:
        chunks = (*values.shape[:-1], rng.choice((10**6, 10**8)))
        file.create_dataset(name, values.shape, values.dtype, maxshape=(None,) * values.ndim, chunks=chunks)


# Images

def damage_tiff(rng: random.Random, content: bytes) -> bytes:
    """Another tag, type, count or value in the first directory."""
    if content[:4] not in (b"II*\0", b"MM\0*") or len(content) < 16:
        return content
    order = "<" if content[:2] == b"II" else ">"
    start = struct.unpack(f"{order}I", content[4:8])[0]
    if start + 2 > len(content):
        return content
    count = struct.unpack(f"{order}H", content[start:start + 2])[0]
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = start + 2 + 12 * rng.randrange(max(1, min(count, 40)))
        offset, form = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")))
        tags = (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 339, 347, 700)
        packings = (5, 6, 7, 8, 32773, 32946, 34676, 50000)
        value = rng.choice((*LENGTHS, *range(1, 14), *(packings if offset else tags)))
        size = struct.calcsize(form)
        if at + offset + size <= len(changed):
            changed[at + offset:at + offset + size] = struct.pack(order + form, value % 2 ** (8 * size))
    return bytes(changed)


def damage_png(rng: random.Random, content: bytes) -> bytes:
    """Another chunk, or another content of one, with the checksum it needs."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        size = struct.unpack(">I", content[at:at + 4])[0]
        chunks.append((content[at + 4:at + 8], content[at + 8:at + 8 + size]))
        at += 12 + size
    if not chunks:
        return content
    place = rng.randrange(len(chunks))
    name, inside = chunks[place]
    kind = rng.randrange(5)
    if kind == 0:
        chunks[place] = (name, damage_bytes(rng, inside, [inside or b"x"]))
    elif kind == 1:
        chunks.insert(place, rng.choice(chunks))
    elif kind == 2:
        chunks.pop(place)
    elif kind == 3:
        chunks.insert(place, rng.choice(((b"PLTE", bytes(9)), (b"tRNS", bytes(6)), (b"acTL", struct.pack(">II", 9, 0)),
                                         (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 23))), (b"iCCP", b"a\0\0x"),
                                         (b"eXIf", rng.randbytes(40)), (b"fdAT", rng.randbytes(40)))))
    else:
        chunks = [(name, zlib.compress(bytes(rng.choice((0, 100, 1 << 24)))) if name == b"IDAT" else inside)
                  for name, inside in chunks]
    return content[:8] + b"".join(struct.pack(">I", len(inside)) + name + inside
                                  + struct.pack(">I", zlib.crc32(name + inside)) for name, inside in chunks)


STRUCTURES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".json": damage_json, ".jsonl": damage_lines, ".csv": damage_csv, ".npy": damage_npy, ".npz": damage_zip,
    ".keras": damage_zip, ".skops": damage_zip, ".h5": damage_hdf5, ".gz": damage_gzip, ".tif": damage_tiff,
    ".png": damage_png}
