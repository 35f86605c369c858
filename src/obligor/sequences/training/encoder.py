"""An encoder put together: token embedding, one of three kinds of body, readout.

A recurrent body goes through a timeline in chunks and hands its state on, as serving does event by event; the gradient
ends where a chunk begins (truncated back-propagation through time, Williams and Peng 1990), and events before the last
`gradient_events` of a batch are gone through without one, so memory does not grow with a timeline. A Transformer sees
the last `tail` events of each row and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from obligor.errors import BadInput, Problem
from obligor.sequences.batches import Batch, Branched
from obligor.sequences.training.embedding import TokenEmbedding
from obligor.sequences.training.gru import GRU
from obligor.sequences.training.linear_attention import LinearAttention
from obligor.sequences.training.ragged import Ragged, joined, ragged
from obligor.sequences.training.readout import Pool, Readout
from obligor.sequences.training.transformer import Transformer
from obligor.sequences.weights import Config, readout_size

__all__ = ["SequenceEncoder"]


class SequenceEncoder(nn.Module):
    """Tokens in, one hidden vector an event and one readout a row out."""

    def __init__(
        self,
        config: Config,
        seed: int,
        *,
        blind: tuple[int, ...] = (),
        memory_events: int = 0,  # that a fresh GRU remembers; 0: a few
        chunk_events: int = 512,
        gradient_events: int = 8192,
    ) -> None:
        super().__init__()
        config = Config.from_json(config.to_json())  # whoever made it: its numbers within their bounds
        if len(set(blind)) >= len(config.sizes):
            raise BadInput(Problem("$.blind", "expected a field that the encoder reads, got none"))
        self.config, self.chunk_events, self.gradient_events = config, chunk_events, gradient_events
        self.blind = blind  # fields that are not read
        generator = torch.Generator().manual_seed(seed)
        width, hidden = config.width, config.hidden
        self.token = TokenEmbedding(config.rows, width, generator, blind, config.waves)
        self.body: GRU | LinearAttention | Transformer
        if config.kind == "gru":
            self.body = GRU(width, hidden, generator, memory_events)
        elif config.kind == "linear_attention":
            self.body = LinearAttention(width, hidden, config.heads, generator)
        else:
            self.body = Transformer(width, hidden, config.layers, config.heads, generator)
        self.readout = Readout(config)

    @property
    def size(self) -> int:
        """Return the length of a readout."""
        return readout_size(self.config)

    def seen(self, tokens: Ragged) -> Ragged:
        """Return the events that the encoder looks at."""
        return tokens.tail(self.config.tail) if isinstance(self.body, Transformer) else tokens

    def hidden(self, tokens: Ragged) -> Iterator[tuple[Ragged, Tensor]]:
        """Yield chunk by chunk the events that are seen and the hidden vector of each, (N, h)."""
        tokens = self.seen(tokens)
        if isinstance(self.body, Transformer):
            yield tokens, self.body(self.token(tokens), tokens.rows, tokens.time)
            return
        state = self.body.zero(len(tokens.rows.length), self.token.table)
        learning = torch.is_grad_enabled()
        for begin in range(0, max(tokens.rows.longest, 1), self.chunk_events):
            chunk = tokens.chunk(begin, begin + self.chunk_events)
            with torch.set_grad_enabled(learning and begin + self.gradient_events >= tokens.rows.longest):
                y, state = self.body(self.token(chunk), chunk.rows, state.detach())
            yield chunk, y

    def outputs(self, tokens: Ragged) -> Tensor:
        """Return the hidden vectors of all events that are seen in flat order, whatever the chunks they came in."""
        rows = self.seen(tokens).rows
        chunks = list(self.hidden(tokens))
        if len(chunks) == 1:
            return chunks[0][1]
        width = self.chunk_events
        places = [
            np.flatnonzero((rows.position >= k * width) & (rows.position < (k + 1) * width)) for k in range(len(chunks))
        ]
        order = np.argsort(np.concatenate(places), kind="stable")
        return torch.cat([y for _, y in chunks]).index_select(0, rows.tensor(order))

    def forward(self, tokens: Ragged) -> Tensor:
        """Return the readout of each row, (B, r)."""
        return self.read(tokens, self.hidden(tokens))

    def readouts(self, batch: Batch | Branched) -> Tensor:
        """Return the readout of each question of a batch, (Q, r); of branches their trunks are gone through once.

        That needs the state at every event, which a GRU's hidden vectors are; the others see each question whole.
        """
        device = self.token.table.device
        if isinstance(batch, Branched):
            if isinstance(self.body, GRU):
                return self._branched(batch, self.body)
            return self(joined(batch, device))  # type: ignore[no-any-return]
        return self(ragged(batch, device))  # type: ignore[no-any-return]

    def _branched(self, batch: Branched, body: GRU) -> Tensor:
        """Return the readouts of questions that go on from the trunk's state at their place: its hidden vector."""
        trunk, tail = ragged(batch.trunk, self.token.table.device), ragged(batch.tail, self.token.table.device)
        y = self.outputs(trunk)
        last = trunk.rows.start[batch.row] + batch.at - 1  # the event before each branch
        some = batch.at > 0
        place = trunk.rows.tensor(np.where(some, last, 0))
        begun = y.index_select(0, place) if len(y) else y.new_zeros(len(last), self.config.hidden)
        begin = torch.where(trunk.rows.tensor(some)[:, None], begun, 0.0)
        own, _ = body(self.token(tail), tail.rows, begin)
        pool = Pool.at(y.float(), trunk.rows, trunk.time, batch.row, batch.at, begin, self.config.fading_days)
        moments = np.append(trunk.time, 0)[np.where(some, last, len(trunk.time))]
        ends = np.append(tail.time, 0)[np.where(tail.rows.length > 0, tail.rows.start + tail.rows.length - 1, 0)]
        latest = np.where(tail.rows.length > 0, ends, np.where(some, moments, tail.as_of))
        return self.readout(pool.update(own, tail.rows, tail.time), tail.as_of - latest)  # type: ignore[no-any-return]

    def read(self, tokens: Ragged, hidden: Iterator[tuple[Ragged, Tensor]]) -> Tensor:
        """Return the readout of each row from hidden vectors that are at hand, (B, r)."""
        rows = tokens.rows
        pool = Pool.zero(len(rows.length), self.config.hidden, rows.device, self.config.fading_days)
        for chunk, y in hidden:
            pool = pool.update(y, chunk.rows, chunk.time)
        age = np.zeros_like(tokens.as_of)
        some = rows.length > 0
        age[some] = tokens.as_of[some] - tokens.time[(rows.start + rows.length - 1)[some]]
        return self.readout(pool, age)  # type: ignore[no-any-return]
