"""Routes: which shard of a log an event goes to, and which decides an application.

The log records, once for all who route, of which entity type the shards are (by default the consumer) and which shard
each of its buckets is on; the bucket is the lake's, the low 12 bits of a CRC-32, for ever. What names such an entity
goes to its shard, so that all applications of one consumer meet the same exposure; everything else goes by the bucket
of the id that it is about. An event that arrives at another shard is taken all the same: only where an application is
decided is a promise, and only the writers' stopping changes the map.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.errors import BadInput, DefinitionError, IntegrityError, Problem, did_you_mean
from obligor.events.batch import Batch
from obligor.events.fields import Entity
from obligor.events.schema import Event, Registry
from obligor.features.buckets import BUCKETS, bucket_of, buckets_of

__all__ = ["ROUTING", "Routes", "ShardMap"]

ROUTING = "routing"  # the log's named value that holds the map
_EVENT = "event"  # what is routed by its id


class ShardMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which shard each bucket of an entity type is on; `format` is that of the recorded JSON."""

    entity: str
    shards: list[int]
    format: int = 1

    @classmethod
    def first(cls, entity: str) -> ShardMap:
        """Return the map of a log of one shard."""
        return cls(entity, [0] * BUCKETS)

    @classmethod
    def read(cls, recorded: bytes) -> ShardMap:
        """Read what a log recorded; IntegrityError where it is no map."""
        try:
            found = msgspec.json.decode(recorded, type=cls)
        except msgspec.DecodeError as error:
            raise IntegrityError(f"the log's map of shards cannot be read: {error}") from None
        if found.format != 1 or len(found.shards) != BUCKETS or min(found.shards) < 0:
            raise IntegrityError(f"the log's map of shards is none of {BUCKETS} buckets")
        return found

    def recorded(self) -> bytes:
        """Return the map as a log records it."""
        return msgspec.json.encode(self)

    @property
    def count(self) -> int:
        """How many shards have buckets."""
        return max(self.shards) + 1

    def sizes(self) -> list[int]:
        """Return how many buckets each shard has."""
        return [self.shards.count(shard) for shard in range(self.count)]

    def widened(self) -> ShardMap:
        """Return the map with one shard more, to which each of the others gives its share of buckets, the last ones.

        >>> ShardMap.first("consumer").widened().widened().sizes()
        [1366, 1365, 1365]
        """
        shards, sizes, new = list(self.shards), Counter(self.shards), self.count
        fair = BUCKETS // (new + 1)
        for bucket in reversed(range(BUCKETS)):
            if sizes[new] < fair < sizes[shards[bucket]]:
                sizes[shards[bucket]] -= 1
                sizes[new] += 1
                shards[bucket] = new
        return ShardMap(self.entity, shards)


@dataclass(frozen=True)
class Routes:
    """A map, applied to the event types of a project."""

    map: ShardMap
    fields: Mapping[str, Sequence[str]]  # by event type: those that hold the entity, by any version's name

    @classmethod
    def of(cls, shard_map: ShardMap, registry: Registry) -> Routes:
        """Return the routes of a registry; DefinitionError where an application does not name the entity.

        A type with several such fields goes by the one that is called as the application's, else by the first.
        """
        held = {event.event_name: _names(event, shard_map.entity) for event in registry}
        for event in registry.applications():
            if not held[event.event_name]:
                known = sorted({one.type for each in registry for one in each.entities().values()})
                raise DefinitionError(
                    f"{event.event_name} names no {shard_map.entity!r}, which the log's shards are of; "
                    f"{did_you_mean(shard_map.entity, known)}"
                )
        usual = {held[event.event_name][0] for event in registry.applications()}
        return cls(shard_map, {name: sorted(own, key=lambda one: one not in usual) for name, own in held.items()})

    @property
    def entity(self) -> str:
        """The entity type that the shards are of."""
        return self.map.entity

    def of_entity(self, key: str) -> int:
        """Return the shard of an entity."""
        return self.map.shards[bucket_of([self.map.entity], key)]

    def of_record(self, record: object) -> int:
        """Return the shard that a record goes to, as it came: one that is no event goes anywhere, to be refused."""
        if not isinstance(record, Mapping):
            return 0
        for name in self.fields.get(str(record.get("type")), ()):
            if isinstance(record.get(name), str):
                return self.of_entity(record[name])
        about = next((record[name] for name in ("corrects", "retracts", "event_id") if record.get(name)), None)
        return self.map.shards[bucket_of([_EVENT], about)] if isinstance(about, str) else 0

    def of_batch(self, batch: Batch) -> NDArray[np.int64]:
        """Return the shard of each row of a batch of this registry's events, in its order: as `of_record`."""
        shards, found = np.array(self.map.shards, np.int64), np.empty(batch.size, np.int64)
        for (name, _), part in batch.parts.items():
            about = pc.coalesce(part["target"], part["event_id"]).combine_chunks()
            own = shards[buckets_of([_EVENT], about)]
            for field in reversed([one for one in self.fields[name] if one in part.column_names]):
                key = part[field].combine_chunks()
                own = np.where(key.is_valid(), shards[buckets_of([self.map.entity], key)], own)
            found[part["index"].to_numpy()] = own
        return found

    def of_application(self, type_name: str, row: pa.Table) -> tuple[int, str]:
        """Return the shard that decides an application, the one row of a table, and the field that says so.

        BadInput where it names nobody.
        """
        for name in self.fields[type_name]:
            key = row[name][0].as_py() if name in row.column_names else None
            if key is not None:
                return self.of_entity(key), name
        message = f"expected the {self.entity} of the application, which says which shard decides it"
        raise BadInput(Problem(f"$.{self.fields[type_name][0]}", message))


def _names(event: type[Event], entity: str) -> list[str]:
    return [name for name, one in event.readable.items() if isinstance(one, Entity) and one.type == entity]
