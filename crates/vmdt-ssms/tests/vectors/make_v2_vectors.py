#!/usr/bin/env python3
"""Makes v2.txt: manifests and shares of version 2, independently of the Rust code.

Written from the crate's documentation alone (the modules `v2`, `dispersal`, `Share`, `Manifest`).
Field arithmetic and Shamir come from make_vectors.py, AES from the `cryptography` package, BLAKE3
from the package of that name, and everything "random" from SHA-256 over a label:

    python3 -m venv venv && venv/bin/pip install cryptography blake3
    venv/bin/python make_v2_vectors.py > v2.txt

Before a case is printed, the script opens it from several subsets of its shares itself.
"""

import itertools
import struct

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from make_vectors import combine, div, key_share, mul, octets

WHOLE = (0, 0, True)


def keyed(domain, data):
    return blake3(data, key=("vmdt-ssms v2 " + domain).ljust(32).encode()).digest()


def stream(key, piece, text):
    """AES-256-CTR: the counter block is the piece's number, eleven zeros, 32 bits from 0."""
    block = bytes([piece]) + bytes(15)
    cipher = Cipher(algorithms.AES(key), modes.CTR(block)).encryptor()
    return cipher.update(text) + cipher.finalize()


def lagrange(points, x):
    """The weight of the value at each point in the value at x."""
    weights = []
    for own in points:
        weight = 1
        for other in points:
            if other != own:
                weight = mul(weight, div(x ^ other, own ^ other))
        weights.append(weight)
    return weights


def factors(k, n):
    """s_i, so that row k + 1 is all ones and the first column is too."""
    data = list(range(1, k + 1))
    s = dict(zip(data, lagrange(data, k + 1) if k < 255 else [1] * k))
    for x in range(k + 1, n + 1):
        s[x] = div(s[1], lagrange(data, x)[0])
    return s


def interpolate(s, given, x):
    """Piece x from k others: piece_i = s_i * f(i)."""
    if x in given:
        return given[x]
    points = list(given)
    row = [mul(s[x], div(w, s[i])) for w, i in zip(lagrange(points, x), points)]
    tables = [[mul(c, value) for value in range(256)] for c in row]
    out = bytes(len(given[points[0]]))
    for table, i in zip(tables, points):
        part = given[i].translate(bytes(table))
        out = (int.from_bytes(out, "big") ^ int.from_bytes(part, "big")).to_bytes(len(out), "big")
    return out


def content_key(secret, bound):
    return keyed("content key", secret + (bound or b""))


def share_head(form, k, n, x, message_id, number, size):
    head = struct.pack(">BBcBBBBB", 0, 2, b"S", 1, form, k, n, x)
    return head + message_id + struct.pack(">QI", number, size)


def make(name, k, n, message, form, position=WHOLE, bound=False, group=False, expires=0,
         ids=(b"alice", b"bob"), text=None):
    secret = octets(name + "/secret", 32)
    coefficients = [octets(f"{name}/coefficient/{j}", 32) for j in range(1, k)]
    message_id = octets(name + "/id", 16)
    bound = octets(name + "/bound", 32) if bound else None
    number, offset, last = position
    key = content_key(secret, bound)
    size = len(message)
    s = factors(k, n)

    if form == 1:
        body = stream(key, 0, message)
        bodies = {x: body for x in range(1, n + 1)}
        content = keyed("content", blake3(body).digest())
    else:
        length = -(-size // k)
        data = {}
        for i in range(1, k + 1):
            part = message[(i - 1) * length : i * length]
            data[i] = stream(key, i, part).ljust(length, b"\0")
        bodies = {x: interpolate(s, data, x) for x in range(1, n + 1)}
        content = keyed("content", b"".join(blake3(data[i]).digest() for i in range(1, k + 1)))

    shares, digests = {}, b""
    for x in range(1, n + 1):
        head = share_head(form, k, n, x, message_id, number, size)
        head += key_share(secret, coefficients, x)
        shares[x] = head + bodies[x]
        digests += keyed("share", head + blake3(bodies[x]).digest())

    manifest = struct.pack(">BBcBBBBB", 0, 2, b"M", 1, form, k, n, last + 2 * group)
    manifest += message_id + struct.pack(">QQIQ", number, offset, size, expires)
    manifest += keyed("key commitment", key) + content
    manifest += b"".join(bytes([len(i)]) + i for i in ids) + digests

    subsets = list(itertools.combinations(range(1, n + 1), k))
    for subset in subsets[:3] + subsets[-3:]:
        point = combine([(x, shares[x][36:68]) for x in subset])
        assert content_key(point, bound) == key
        if form == 1:
            opened = stream(key, 0, shares[subset[0]][68:])
        else:
            given = {x: shares[x][68:] for x in subset}
            opened, left = b"", size
            for i in range(1, k + 1):
                part = interpolate(s, given, i)[:left]
                opened += stream(key, i, part)
                left -= len(part)
        assert opened == message

    print()
    print("name", name)
    if text is None:
        print("message", message.hex())
    else:
        print("text", text)
    print("form", form)
    if bound:
        print("bound", bound.hex())
    print("secret", secret.hex())
    for row in coefficients:
        print("coefficient", row.hex())
    print("manifest", manifest.hex())
    print("digest", keyed("manifest", manifest).hex())
    for x in range(1, n + 1):
        if text is None:
            print("share", shares[x].hex())
        else:
            print("head", shares[x][:68].hex())
            print("body-blake3", blake3(bodies[x]).hexdigest())


def pattern(size):
    """Octets that the test makes itself."""
    return bytes(((i * 89) ^ (i >> 7)) & 0xFF for i in range(size))


if __name__ == "__main__":
    print("# Manifests and shares of version 2, made by make_v2_vectors.py. One case per paragraph;")
    print("# values in hex but for name, form and text. `coefficient` lines belong to x^1, x^2, ...;")
    print("# `text` is a length: octet i is the low octet of (89 i) xor (i / 128). Of long shares")
    print("# there are the head and the BLAKE3 hash of the body. All but the parties, the threshold")
    print("# and the rest of what a sealer is told follows from the manifest.")
    make("empty-replicated-2-of-2", 2, 2, b"", 1)
    make("empty-dispersed-2-of-3", 2, 3, b"", 2)
    make("text-replicated-3-of-5", 3, 5, "Grüße an alle: meet at noon.".encode(), 1)
    make("text-dispersed-3-of-5", 3, 5, "Grüße an alle: meet at noon.".encode(), 2)
    make("one-octet-dispersed-3-of-4", 3, 4, b"\x80", 2)
    make("bound-2-of-3", 2, 3, octets("message/300", 300), 2, bound=True)
    make("segment-of-a-stream-3-of-5", 3, 5, octets("message/257", 257), 2,
         position=(7, 7 * 4096, False), expires=1_900_000_000)
    make("last-segment-for-a-group", 2, 4, octets("message/100", 100), 1,
         position=(2**32, 2**52, True), group=True, ids=(b"", bytes(range(64))))
    make("seven-of-ten", 7, 10, octets("message/700", 700), 2)
    make("wide-20-of-23", 20, 23, octets("message/1000", 1000), 2)
    make("all-indices-2-of-255", 2, 255, b"255 shares", 2)
    make("long-3-of-5", 3, 5, pattern(100_003), 2, bound=True, text=100_003)
    make("long-whole-strips-2-of-3", 2, 3, pattern(65_536), 2, text=65_536)
