"""The encoders in plain Python floats, from the equations: one sum after another, in the order that is promised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tests.sequences.examples import DAY, Events, Tensors

from obligor.features import portable
from obligor.sequences.weights import Config

Vector = list[float]
exp, log = portable.exp.py_func, portable.log.py_func
sigmoid = portable.sigmoid.py_func


class Twin:
    """An encoder of any kind; what a control breaks is a method."""

    def __init__(self, config: Config, tensors: Tensors) -> None:
        self.config, self.h = config, config.hidden
        self.w: dict[str, Any] = {name: tensor.astype(np.float64).tolist() for name, tensor in tensors.items()}

    def add(self, start: float, products: Sequence[float]) -> float:
        """Return start plus the products, one after another."""
        for one in products:
            start = start + one
        return start

    def tanh(self, x: float) -> float:
        """Return the hyperbolic tangent: a rational function near zero, else by exp."""
        a = min(abs(x), 22.0)
        if a < 0.625:
            s = a * a
            over = (-9.64399179425052238628e-1 * s + -9.92877231001918586564e1) * s + -1.61468768441708447952e3
            under = ((s + 1.12811678491632931402e2) * s + 2.23548839060100448583e3) * s + 4.84406305325125486048e3
            y = a + a * s * (over / under)
        else:
            e = exp(-2.0 * a)
            y = (1.0 - e) / (1.0 + e)
        return y if x >= 0.0 else -y

    def product(self, matrix: list[Vector], x: Vector, start: Vector | None = None) -> Vector:
        """Return start + matrix (outputs, inputs) x."""
        return [
            self.add(start[j] if start else 0.0, [w * one for w, one in zip(row, x, strict=True)])
            for j, row in enumerate(matrix)
        ]

    def folded(self, matrix: list[Vector], start: Vector, codes: Sequence[int], parts: Sequence[float]) -> Vector:
        """Return start + matrix times the token, by rows of the tables times the matrix, rounded to float32."""
        found = list(start)
        for f, (code, part) in enumerate(zip(codes, parts, strict=True)):
            for row, share in self.shares(f, code, part):
                of_row = [float(np.float32(one)) for one in self.product(matrix, self.w[f"token.{f}"][row])]
                found = [self.add(a, [b * share]) for a, b in zip(found, of_row, strict=True)]
        return found

    def shares(self, f: int, code: int, part: float) -> list[tuple[int, float]]:
        """Return the rows of a field's table that count, and how much each does."""
        if code == 0 or not self.config.periodic[f]:
            return [(code, 1.0 - part), (code + 1, part)][: 2 if part else 1]
        angles = [self.angle(frequency * part) for frequency in self.w[f"frequency.{f}"]]
        return list(enumerate([sine(angle, ahead) for ahead in (0, 1) for angle in angles], 1))

    def angle(self, turns: float) -> float:
        """Return what is left of some turns, in radians."""
        return 2.0 * math.pi * (turns - round(turns))

    def unit(self, x: Vector, weight: Vector) -> Vector:
        """Return x over its root mean square, times weight."""
        root = math.sqrt(self.add(0.0, [one * one for one in x]) / len(x) + 1e-5)
        return [one / root * w for one, w in zip(x, weight, strict=True)]

    def readout(self, events: Events, as_of: int) -> Vector:
        """Return the readout at an instant."""
        n = len(events.time)
        if self.config.kind == "transformer":
            events = events.cut(max(0, n - self.config.tail), n)
        tokens = list(zip(events.codes.tolist(), events.parts.astype(np.float64).tolist(), strict=True))
        if not tokens:
            return list(self.w["readout.empty"])
        made = {"gru": self.gru, "linear_attention": self.linear_attention, "transformer": self.transformer}
        ys = made[self.config.kind](tokens, events.time.tolist())
        age = log(1.0 + (as_of - int(events.time[-1])) / 1e6) / 0.6931471805599453 / 16.0
        return [
            *self.pooled(ys),
            *self.faded(ys, events.time.tolist(), as_of),
            age,
            log(1.0 + len(ys)) / 0.6931471805599453 / 16.0,
        ]

    def pooled(self, ys: list[Vector]) -> Vector:
        """Return last, mean, deviation, least and most."""
        n, columns = len(ys), list(zip(*ys, strict=True))
        means = [self.add(0.0, c) / n for c in columns]
        squares = [self.add(0.0, [y * y for y in c]) / n for c in columns]
        spread = [math.sqrt(max(s - m * m, 0.0) + 1e-6) for s, m in zip(squares, means, strict=True)]
        return [*ys[-1], *means, *spread, *(min(c) for c in columns), *(max(c) for c in columns)]

    def faded(self, ys: list[Vector], times: list[int], as_of: int) -> Vector:
        """Return the sums that fade over each span."""
        found = []
        for days in self.config.fading_days:
            sums, before = [0.0] * self.h, times[0]
            for y, time in zip(ys, times, strict=True):
                left = exp(-float(time - before) / (days * float(DAY)))
                sums, before = [one * left + own for one, own in zip(sums, y, strict=True)], time
            found += [one * exp(-float(as_of - before) / (days * float(DAY))) for one in sums]
        return found

    def gru(self, tokens: list[tuple[list[int], Vector]], _: list[int]) -> list[Vector]:
        """Return y of each event."""
        h, w = self.h, self.w
        own, before = w["gru.bias_ih"], w["gru.bias_hh"]
        start = [a + b for a, b in zip(own[: 2 * h], before[: 2 * h], strict=True)] + own[2 * h :]
        state, found = [0.0] * h, []
        for codes, parts in tokens:
            x = self.folded(w["gru.weight_ih"], start, codes, parts)
            inner = self.product(w["gru.weight_hh"], state, [*x[: 2 * h], *before[2 * h :]])
            r, z = [sigmoid(g) for g in inner[:h]], [sigmoid(g) for g in inner[h : 2 * h]]
            n = [self.tanh(x[2 * h + j] + r[j] * inner[2 * h + j]) for j in range(h)]
            state = [(1.0 - z[j]) * n[j] + z[j] * state[j] for j in range(h)]
            found.append(state)
        return found

    def linear_attention(self, tokens: list[tuple[list[int], Vector]], _: list[int]) -> list[Vector]:
        """Return y of each event."""
        h, w, size = self.h, self.w, self.h // self.config.heads
        memory = [[0.0] * h for _ in range(size)]
        found = []
        for codes, parts in tokens:
            zero = [0.0] * h
            q, k, v, s = (
                self.folded(w[f"la.{name}"], zero, codes, parts) for name in ("query", "key", "value", "gate")
            )
            decay = self.folded(w["la.decay"], w["la.decay_bias"], codes, parts)
            g = [math.sqrt(math.sqrt(math.sqrt(math.sqrt(sigmoid(one))))) for one in decay]
            o: Vector = []
            for a in range(0, h, size):
                for i in range(size):
                    for j in range(a, a + size):
                        memory[i][j] = g[a + i] * memory[i][j] + k[a + i] * v[j]
                answer = [
                    self.add(0.0, [q[a + i] / math.sqrt(size) * memory[i][j] for i in range(size)])
                    for j in range(a, a + size)
                ]
                o += self.unit(answer, w["la.norm"][a : a + size])
            gated = [one * (gate * sigmoid(gate)) for one, gate in zip(o, s, strict=True)]
            found.append(self.product(w["la.out"], gated))
        return found

    def transformer(self, tokens: list[tuple[list[int], Vector]], times: list[int]) -> list[Vector]:
        """Return y of each event of the tail."""
        x = [self.folded(self.w["in"], [0.0] * self.h, codes, parts) for codes, parts in tokens]
        days = [(t - times[-1]) / DAY for t in times]
        for layer in range(self.config.layers):
            x = self.layer(f"layer.{layer}.", x, days)
        return [self.unit(one, self.w["final_norm"]) for one in x]

    def layer(self, name: str, x: list[Vector], days: list[float]) -> list[Vector]:
        """Return x after one layer."""
        h, w, size = self.h, self.w, self.h // self.config.heads
        made = [self.product(w[name + "qkv"], self.unit(one, w[name + "norm1"])) for one in x]
        queries = [self.turned(one[:h], day) for one, day in zip(made, days, strict=True)]
        keys = [self.turned(one[h : 2 * h], day) for one, day in zip(made, days, strict=True)]
        values = [one[2 * h :] for one in made]
        found = []
        for i, own in enumerate(x):
            taken: Vector = []
            for a in range(0, h, size):
                dims = range(a, a + size)
                scores = [self.add(0.0, [keys[j][d] * queries[i][d] for d in dims]) for j in range(i + 1)]
                weights = [exp((one - max(scores)) / math.sqrt(size)) for one in scores]
                total = self.add(0.0, weights)
                taken += [self.add(0.0, [values[j][d] * weights[j] for j in range(i + 1)]) / total for d in dims]
            middle = self.product(w[name + "out"], taken, own)
            up = self.product(w[name + "up"], self.unit(middle, w[name + "norm2"]))
            found.append(self.product(w[name + "down"], [one * sigmoid(one) for one in up], middle))
        return found

    def turned(self, x: Vector, days: float) -> Vector:
        """Return a query or key with its pairs turned by their angles."""
        size, found = self.h // self.config.heads, list(x)
        pairs = size // 2
        low, high = log(1.0 / 12.0), log(730.0)
        for a in range(0, self.h, size):
            for j in range(pairs):
                angle = days * (2.0 * math.pi / exp(low + j * ((high - low) / max(1, pairs - 1))))
                s, c = sine(angle, 0), sine(angle, 1)
                first, second = x[a + 2 * j], x[a + 2 * j + 1]
                found[a + 2 * j], found[a + 2 * j + 1] = first * c - second * s, first * s + second * c
        return found

    def head(self, name: str, r: Vector) -> Vector:
        """Return a head's log-odds."""
        names = ("norm_mean", "norm_scale", "gate", "gate_bias", "hidden", "hidden_bias", "out")
        part: dict[str, Any] = {key: self.w.get(f"head.{name}.{key}") for key in names}
        scaled = [(a - m) * s for a, m, s in zip(r, part["norm_mean"], part["norm_scale"], strict=True)]
        shares, bottoms = [1.0], [(part["hidden"], part["hidden_bias"])]
        if part["gate"]:
            sums = self.product(part["gate"], scaled, part["gate_bias"])
            shares = [exp(one - max(sums)) for one in sums]
            shares = [one / self.add(0.0, shares) for one in shares]
            bottoms = list(zip(part["hidden"], part["hidden_bias"], strict=True))
        layers = [self.product(hidden, scaled, bias) for hidden, bias in bottoms]
        below = [
            self.add(0.0, [x * sigmoid(x) * share for x, share in zip(unit, shares, strict=True)])
            for unit in zip(*layers, strict=True)
        ]
        return self.product(part["out"], below, self.w[f"head.{name}.out_bias"])


def sine(x: float, ahead: int) -> float:
    """Return the sine of x and `ahead` quarters of a turn, by fdlibm's polynomials."""
    n = round(x * 6.36619772367581382433e-01)
    r = ((x - n * 1.57079632673412561417e00) - n * 6.07710050630396597660e-11) - n * 2.02226624879595063154e-21
    z = r * r
    sines: tuple[float, ...] = (-1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04)
    sines += (2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10)
    cosines: tuple[float, ...] = (4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05)
    cosines += (-2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11)
    quarter = (n + ahead) % 4
    cosine = 1.0 - (0.5 * z - z * z * _polynomial(cosines, z))
    y = cosine if quarter % 2 else r + r * z * _polynomial(sines, z)
    return -y if quarter >= 2 else y


def _polynomial(coefficients: Sequence[float], z: float) -> float:
    found = coefficients[-1]
    for one in reversed(coefficients[:-1]):
        found = one + z * found
    return found
