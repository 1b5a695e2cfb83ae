"""Keyed permutations: of any number of things in no memory, and of an array in place.

The first is a Feistel network over the pairs (left, right) of a rectangle that
holds `n` points and few more; a point that falls outside is sent on until it
falls inside, which keeps it a permutation. So the i-th of a billion places costs
eight rounds, and finding where a thing went costs the same.

Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002 (generalised
    Feistel, cycle walking); the round function is the finaliser of SplitMix64, Steele,
    Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014.
    Differs: it need not keep a secret, so the rounds are fast, not cryptographic.
"""

from __future__ import annotations

import numpy as np

from penstock.kernels.buffers import I64, Int
from penstock.kernels.compiled import kernel

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_27, _30, _31, _32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_ROUNDS = 8


@kernel
def _below(key: Int, value: Int, limit: Int) -> Int:
    """A number in [0, limit) that the key and the value choose; limit is at most 2**32."""
    x = np.uint64(key) + (np.uint64(value) + np.uint64(1)) * _STEP
    x = (x ^ (x >> _30)) * _MIX_1
    x = (x ^ (x >> _27)) * _MIX_2
    x ^= x >> _31
    return np.int64(((x >> _32) * np.uint64(limit)) >> _32)


@kernel
def _sides(n: Int) -> tuple[Int, Int]:
    """The rectangle: two sides of nearly equal length whose product is at least n."""
    a = np.int64(np.sqrt(np.float64(n)))
    while a * a < n:
        a += 1
    return a, (n + a - 1) // a


@kernel
def _forward(x: Int, a: Int, b: Int, key: Int) -> Int:
    left, right = x // b, x % b
    for k in range(_ROUNDS):
        round_key = np.uint64(key) ^ (np.uint64(k + 1) * _MIX_1)
        if k % 2:
            right = (right + _below(round_key, left, b)) % b
        else:
            left = (left + _below(round_key, right, a)) % a
    return left * b + right


@kernel
def _backward(x: Int, a: Int, b: Int, key: Int) -> Int:
    left, right = x // b, x % b
    for k in range(_ROUNDS - 1, -1, -1):
        round_key = np.uint64(key) ^ (np.uint64(k + 1) * _MIX_1)
        if k % 2:
            right = (right + b - _below(round_key, left, b)) % b
        else:
            left = (left + a - _below(round_key, right, a)) % a
    return left * b + right


@kernel
def permuted(first: Int, last: Int, n: Int, key: Int) -> I64:
    """What the key puts at the places `first` to `last`, without the latter, of n; int64."""
    a, b = _sides(n)
    out = np.empty(last - first, np.int64)
    for i in range(last - first):
        x = _forward(np.int64(first + i), a, b, key)
        while x >= n:
            x = _forward(x, a, b, key)
        out[i] = x
    return out


@kernel
def place_of(x: Int, n: Int, key: Int) -> Int:
    """At which place `permuted` puts x."""
    a, b = _sides(n)
    y = _backward(np.int64(x), a, b, key)
    while y >= n:
        y = _backward(y, a, b, key)
    return y


@kernel
def shuffled(n: Int, key: Int) -> I64:
    """The numbers 0 to n - 1 in an order that the key chooses, each order being as likely.

    Source: Fisher and Yates, as of Durstenfeld, Algorithm 235, 1964.
    """
    out = np.arange(n)
    for i in range(n - 1, 0, -1):
        j = _below(key, i, i + 1)
        out[i], out[j] = out[j], out[i]
    return out
