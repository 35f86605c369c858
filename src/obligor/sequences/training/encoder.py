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

from obligor.errors import BadInput
from obligor.sequences.training.embedding import TokenEmbedding
from obligor.sequences.training.gru import GRU
from obligor.sequences.training.linear_attention import LinearAttention
from obligor.sequences.training.ragged import Ragged
from obligor.sequences.training.readout import Pool, Readout
from obligor.sequences.training.transformer import Transformer
from obligor.sequences.weights import Config, readout_size

__all__ = ["SequenceEncoder"]


class SequenceEncoder(nn.Module):
    """Tokens in, one hidden vector an event and one readout a row out."""

    def __init__(self, config: Config, seed: int, *, chunk_events: int = 512, gradient_events: int = 8192) -> None:
        super().__init__()
        if problems := tuple(config.problems()):
            raise BadInput(problems)
        self.config, self.chunk_events, self.gradient_events = config, chunk_events, gradient_events
        generator = torch.Generator().manual_seed(seed)
        width, hidden = config.width, config.hidden
        self.token = TokenEmbedding(config.sizes, width, generator)
        self.body: GRU | LinearAttention | Transformer
        if config.kind == "gru":
            self.body = GRU(width, hidden, generator)
        elif config.kind == "linear_attention":
            self.body = LinearAttention(width, hidden, config.heads, generator)
        else:
            self.body = Transformer(width, hidden, config.layers, config.heads, generator)
        self.readout = Readout(hidden)

    @property
    def size(self) -> int:
        """Return the length of a readout."""
        return readout_size(self.config.hidden)

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

    def forward(self, tokens: Ragged) -> Tensor:
        """Return the readout of each row, (B, 5h + 2)."""
        return self.read(tokens, self.hidden(tokens))

    def read(self, tokens: Ragged, hidden: Iterator[tuple[Ragged, Tensor]]) -> Tensor:
        """Return the readout of each row from hidden vectors that are at hand, (B, 5h + 2)."""
        rows = tokens.rows
        pool = Pool.zero(len(rows.length), self.config.hidden, rows.device)
        for chunk, y in hidden:
            pool = pool.update(y, chunk.rows)
        age = np.zeros_like(tokens.as_of)
        some = rows.length > 0
        age[some] = tokens.as_of[some] - tokens.time[(rows.start + rows.length - 1)[some]]
        return self.readout(pool, age)  # type: ignore[no-any-return]
