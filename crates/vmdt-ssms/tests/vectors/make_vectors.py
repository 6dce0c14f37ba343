#!/usr/bin/env python3
"""Makes v1.txt: shares of version 1, independently of the Rust code.

Written from the protocol document alone. The field is a log/antilog table over generator 3, the
cipher is AES-CTR of the `cryptography` package, and everything "random" is the output of SHA-256
over a label, so that the file can be made again to the octet:

    python3 -m venv venv && venv/bin/pip install cryptography
    venv/bin/python make_vectors.py > v1.txt

Before a case is printed, the script combines every tested subset of its shares itself.
"""

import hashlib
import itertools
import struct
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

# GF(2^8) modulo x^8 + x^4 + x^3 + x + 1; 3 generates the multiplicative group.
EXP = []
value = 1
for _ in range(255):
    EXP.append(value)
    shifted = value << 1
    if shifted & 0x100:
        shifted ^= 0x11B
    value ^= shifted
LOG = {v: i for i, v in enumerate(EXP)}
assert len(LOG) == 255


def mul(a, b):
    return 0 if a == 0 or b == 0 else EXP[(LOG[a] + LOG[b]) % 255]


def div(a, b):
    return 0 if a == 0 else EXP[(LOG[a] - LOG[b]) % 255]


def power(a, e):
    result = 1
    for _ in range(e):
        result = mul(result, a)
    return result


def octets(label, count):
    """`count` octets from a label: SHA-256 in counter mode."""
    out = b""
    block = 0
    while len(out) < count:
        out += hashlib.sha256(b"%s/%d" % (label.encode(), block)).digest()
        block += 1
    return out[:count]


def aes_256_ctr(key, nonce, text):
    cipher = Cipher(algorithms.AES(key), modes.CTR(nonce + b"\0\0\0\0")).encryptor()
    return cipher.update(text) + cipher.finalize()


def key_share(key, coefficients, x):
    """The sum of c_j * x^j, written out term by term; `coefficients[0]` belongs to x^1."""
    out = bytearray(key)
    for j, row in enumerate(coefficients, start=1):
        xj = power(x, j)
        for i in range(32):
            out[i] ^= mul(row[i], xj)
    return bytes(out)


def combine(points):
    out = bytearray(32)
    for xi, yi in points:
        weight = 1
        for xj, _ in points:
            if xj != xi:
                weight = mul(weight, div(xj, xi ^ xj))
        for i in range(32):
            out[i] ^= mul(weight, yi[i])
    return bytes(out)


def make(name, k, n, message, zero_top=False):
    key = octets(name + "/key", 32)
    nonce = octets(name + "/nonce", 12)
    coefficients = [octets(f"{name}/coefficient/{j}", 32) for j in range(1, k)]
    if zero_top:
        coefficients[-1] = bytes(32)
    body = aes_256_ctr(key, nonce, message)
    heads = []
    for x in range(1, n + 1):
        share = key_share(key, coefficients, x)
        heads.append(struct.pack(">BIBI", x, len(message), k, 32) + nonce + share)

    points = [(h[0], h[22:54]) for h in heads]
    for subset in itertools.islice(itertools.combinations(points, k), 200):
        assert combine(subset) == key
    assert combine(points[-k:]) == key
    assert aes_256_ctr(key, nonce, body) == message

    print()
    print("name", name)
    print("k", k)
    print("n", n)
    print("message", message.hex())
    print("key", key.hex())
    print("nonce", nonce.hex())
    for row in coefficients:
        print("coefficient", row.hex())
    print("body", body.hex())
    for head in heads:
        print("head", head.hex())


if __name__ == "__main__":
    print("# Shares of version 1, made by make_vectors.py. One case per paragraph; values in hex but")
    print("# for name, k and n. `coefficient` lines belong to x^1, x^2, ... in this order; a share is")
    print("# its `head` followed by `body`.")
    make("empty-2-of-2", 2, 2, b"")
    make("one-octet-2-of-3", 2, 3, b"\x00")
    make("text-3-of-5", 3, 5, "Grüße an alle: meet at noon.".encode())
    make("one-block-4-of-4", 4, 4, bytes(range(16)))
    make("block-and-one-7-of-10", 7, 10, octets("message/17", 17))
    make("payload-3-of-5", 3, 5, octets("message/1393", 1393))
    make("counter-carry-2-of-3", 2, 3, octets("message/4200", 4200))
    make("zero-top-coefficient-3-of-4", 3, 4, b"degree one in disguise", zero_top=True)
    make("all-indices-2-of-255", 2, 255, b"255 shares")
    make("wide-20-of-23", 20, 23, b"more coefficients than one batch")
    print(sys.version.split()[0], file=sys.stderr)
