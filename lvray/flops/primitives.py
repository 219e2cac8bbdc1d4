"""What does each elementary operation cost under the coursework's table?

    add, subtract, negate                  1
    multiply, divide, invert               1
    ReLU, absolute value                   1
    exponential, logarithm                10
    sine, cosine, square root             10
    (m, n) @ (n, p)          m·p·(2n − 1)      n products and n − 1 sums for each of m·p entries
    anything else                          0

What a layer makes of them is composed below, one line an operation, so that it can be checked by eye.
"""

from __future__ import annotations

ADD = 1
MULTIPLY = 1
DIVIDE = 1
EXP = 10
SQRT = 10


def matmul(rows: int, inner: int, columns: int) -> int:
    """FLOPs of [rows, inner] @ [inner, columns]."""
    return rows * columns * (inner * MULTIPLY + (inner - 1) * ADD)


def softmax(rows: int, width: int) -> int:
    """FLOPs of a softmax over each of `rows` rows: ``12·width − 1`` a row; no maximum is subtracted."""
    exponentials = width * EXP
    total = (width - 1) * ADD
    shares = width * DIVIDE
    return rows * (exponentials + total + shares)


def rms_norm(rows: int, width: int) -> int:
    """FLOPs of x / √(mean(x²) + ε) · gain over each of `rows` rows: ``4·width + 11`` a row."""
    squares = width * MULTIPLY
    mean = (width - 1) * ADD + DIVIDE
    root = ADD + SQRT
    normalised = width * DIVIDE
    gained = width * MULTIPLY
    return rows * (squares + mean + root + normalised + gained)


def swiglu(units: int) -> int:
    """FLOPs of g · 1/(1 + exp(−g)) · u for each of `units` pairs (g, u): 15 a pair."""
    sigmoid = ADD + EXP + ADD + DIVIDE
    return units * (sigmoid + MULTIPLY + MULTIPLY)
