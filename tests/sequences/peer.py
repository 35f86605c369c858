"""The same encoders in PyTorch, float32, from its own modules where it has them: what training computes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from tests.sequences.examples import DAY, Events, Tensors
from torch.nn import functional

from obligor.sequences.weights import Config


class Peer:
    """An encoder of any kind over whole sequences."""

    def __init__(self, config: Config, tensors: Tensors) -> None:
        self.config = config
        self.w = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}

    @torch.inference_mode()
    def log_odds(self, events: Events, as_of: int) -> dict[str, Any]:
        """Return each head's log-odds as numpy."""
        n = len(events.time)
        if self.config.kind == "transformer":
            events = events.cut(max(0, n - self.config.tail), n)
        r = self.readout(events, as_of) if n else self.w["readout.empty"]
        names = sorted({name.split(".")[1] for name in self.w if name.startswith("head.")})
        return {name: self.head(name, r).numpy() for name in names}

    def readout(self, events: Events, as_of: int) -> torch.Tensor:
        """Return the readout (r,)."""
        x = self.tokens(events)
        y = getattr(self, self.config.kind)(x, events.time)  # (n, h)
        age, count = (as_of - int(events.time[-1])) / 1e6, len(events.time)
        spread = torch.sqrt(torch.var(y, 0, correction=0) + 1e-6)
        ages = torch.tensor([math.log2(1 + age) / 16, math.log2(1 + count) / 16], dtype=torch.float32)
        ages_days = torch.from_numpy((as_of - events.time) / DAY)
        faded = [(torch.exp(-ages_days / days).float() @ y) for days in self.config.fading_days]
        return torch.cat([y[-1], y.mean(0), spread, y.amin(0), y.amax(0), *faded, ages])

    def tokens(self, events: Events) -> torch.Tensor:
        """Return the token vectors (n, d)."""
        found = torch.zeros(len(events.time), self.config.width)
        for f in range(len(self.config.sizes)):
            table, code = self.w[f"token.{f}"], torch.from_numpy(events.codes[:, f].astype(np.int64))
            part = torch.from_numpy(events.parts[:, f])[:, None]
            if self.config.periodic[f]:
                turns = (part.double() * self.w[f"frequency.{f}"].double()) % 1.0
                waves = torch.cat([torch.sin(2 * math.pi * turns), torch.cos(2 * math.pi * turns)], 1).float()
                found += torch.where((code > 0)[:, None], waves @ table[1:], table[0])
                continue
            found += (1 - part) * table[code] + part * table[torch.clamp(code + 1, max=len(table) - 1)]
        return found

    def gru(self, x: torch.Tensor, _: Any) -> torch.Tensor:
        """Return y (n, h) by torch.nn.GRU."""
        module = torch.nn.GRU(self.config.width, self.config.hidden, batch_first=True)
        names = {
            "weight_ih_l0": "weight_ih",
            "weight_hh_l0": "weight_hh",
            "bias_ih_l0": "bias_ih",
            "bias_hh_l0": "bias_hh",
        }
        module.load_state_dict({own: self.w[f"gru.{name}"] for own, name in names.items()})
        return module(x[None])[0][0]  # type: ignore[no-any-return]

    def linear_attention(self, x: torch.Tensor, _: Any) -> torch.Tensor:
        """Return y (n, h)."""
        heads = self.config.heads
        size = self.config.hidden // heads
        q, k, v, s = ((x @ self.w[f"la.{name}"].T) for name in ("query", "key", "value", "gate"))
        g = torch.sigmoid(x @ self.w["la.decay"].T + self.w["la.decay_bias"]) ** (1 / 16)
        q, k, v, g = (one.view(-1, heads, size) for one in (q, k, v, g))
        memory, found = torch.zeros(heads, size, size), []
        for t in range(len(x)):
            memory = g[t][:, :, None] * memory + k[t][:, :, None] * v[t][:, None, :]
            found.append(torch.einsum("hi,hij->hj", q[t] / math.sqrt(size), memory))
        o = functional.rms_norm(torch.stack(found), (size,), eps=1e-5).reshape(len(x), -1) * self.w["la.norm"]
        return (o * functional.silu(s)) @ self.w["la.out"].T

    def transformer(self, x: torch.Tensor, time: Any) -> torch.Tensor:
        """Return y (n, h)."""
        h, n = self.config.hidden, len(x)
        x = x @ self.w["in"].T
        for layer in range(self.config.layers):
            w = {name: self.w[f"layer.{layer}.{name}"] for name in ("norm1", "qkv", "out", "norm2", "up", "down")}
            made = functional.rms_norm(x, (h,), w["norm1"], 1e-5) @ w["qkv"].T
            q, k, v = (one.view(n, self.config.heads, -1).transpose(0, 1) for one in made.view(n, 3, h).unbind(1))
            q, k = self.turned(q, time), self.turned(k, time)
            taken = functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
            x = x + taken.transpose(0, 1).reshape(n, h) @ w["out"].T
            up = functional.silu(functional.rms_norm(x, (h,), w["norm2"], 1e-5) @ w["up"].T)
            x = x + up @ w["down"].T
        return functional.rms_norm(x, (h,), self.w["final_norm"], 1e-5)

    def turned(self, x: torch.Tensor, time: Any) -> torch.Tensor:
        """Return x (heads, n, size) turned, as complex numbers; the angles in float64, as they are large."""
        pairs = x.shape[-1] // 2
        periods = torch.logspace(math.log10(1 / 12), math.log10(730), pairs, dtype=torch.float64)
        days = torch.from_numpy((time - time[-1]) / DAY)
        angles = days[:, None] * (2 * math.pi / periods)  # (n, pairs)
        turn = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
        pair = torch.view_as_complex(x.reshape(*x.shape[:-1], pairs, 2).contiguous())
        return torch.view_as_real(pair * turn).reshape(x.shape)

    def head(self, name: str, r: torch.Tensor) -> torch.Tensor:
        """Return a head's log-odds (o,)."""
        w = {key.removeprefix(f"head.{name}."): one for key, one in self.w.items() if key.startswith(f"head.{name}.")}
        r = (r - w["norm_mean"]) * w["norm_scale"]
        if "gate" not in w:
            return w["out"] @ functional.silu(w["hidden"] @ r + w["hidden_bias"]) + w["out_bias"]
        shares = torch.softmax(w["gate"] @ r + w["gate_bias"], 0)
        layers = zip(w["hidden"], w["hidden_bias"], strict=True)
        experts = torch.stack([functional.silu(hidden @ r + bias) for hidden, bias in layers])
        return w["out"] @ (shares @ experts) + w["out_bias"]
