"""Events: typed facts, validated at the edge, in one durable, ordered log."""
