"""A buy-now-pay-later lender's world from a seed: raw events with known truth, kept apart from what models see.

from obligor.simulator import World, simulate, write
write(simulate(World.of_size(events=1_000_000)), Path("data"))
"""

from obligor.simulator.history import history, live, true_probabilities, write
from obligor.simulator.simulation import Simulation, simulate
from obligor.simulator.world import World

__all__ = ["Simulation", "World", "history", "live", "simulate", "true_probabilities", "write"]
