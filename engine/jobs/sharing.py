"""How a shared worker divides its free slots among clients: pure."""

import heapq
from collections.abc import Mapping, Sequence


def fair_shares(waiting: Sequence[str], in_flight: Mapping[str, int], free: int) -> dict[str, int]:
    """How many of `free` slots each of the `waiting` clients gets, so that nobody could have more without another
    having less than he (max-min fairness over what is in flight already).

    Among equals the order of `waiting` decides. Clients that get nothing are left out.
    Source: Bertsekas and Gallager, Data Networks, 2nd edition, section 6.5.2.
    """
    heap = [(in_flight.get(client, 0), place, client) for place, client in enumerate(waiting)]
    heapq.heapify(heap)
    shares: dict[str, int] = {}
    for _ in range(free if heap else 0):
        held, place, client = heap[0]
        shares[client] = shares.get(client, 0) + 1
        heapq.heapreplace(heap, (held + 1, place, client))
    return shares
