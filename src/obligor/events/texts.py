"""Control characters in columns of keys: where they are, found in one pass over the column's bytes.

The key of a composite entity is its parts joined by U+001F, so no part may contain it; the other control characters
have no place in a key either, and are refused with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.events.fields import CONTROL

__all__ = ["controlled"]

_SPACE = 0x20  # the first character that is none; a byte of a longer UTF-8 sequence is never below it


def controlled(texts: pa.StringArray) -> npt.NDArray[np.bool_]:
    """Return which texts contain a character of U+0000 to U+001F; null does not.

    >>> controlled(pa.array(["c-1", "c\\x1f1", None])).tolist()
    [False, True, False]
    """
    _, ends, data = texts.buffers()
    if len(texts) == 0 or data is None:
        return np.zeros(len(texts), np.bool_)
    places = np.frombuffer(ends, np.int32, len(texts) + 1, texts.offset * 4)
    characters = np.frombuffer(data, np.uint8)[places[0] : places[-1]]
    if len(characters) == 0 or characters.min() >= _SPACE:
        return np.zeros(len(texts), np.bool_)
    found = pc.match_substring_regex(texts, CONTROL.pattern).fill_null(False)
    where: npt.NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
    return where
