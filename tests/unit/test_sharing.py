"""How a shared worker divides its slots."""

from hypothesis import given
from hypothesis import strategies as st

from engine.jobs.sharing import fair_shares


def test_free_slots_are_divided_evenly() -> None:
    """Among clients with nothing in flight, slots are dealt in turn, the first ones getting the remainder."""
    assert fair_shares(["a", "b", "c"], {}, 7) == {"a": 3, "b": 2, "c": 2}


def test_who_has_much_in_flight_waits_until_the_others_have_as_much() -> None:
    """What a client has running already counts against its share."""
    assert fair_shares(["flood", "small"], {"flood": 40}, 10) == {"small": 10}


def test_nobody_waiting_or_no_slot_gives_no_shares() -> None:
    """Without clients or without slots there is nothing to divide."""
    assert fair_shares([], {}, 5) == {}
    assert fair_shares(["a"], {}, 0) == {}


@given(
    held=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 50)),
    waiting=st.lists(st.sampled_from("abcdefgh"), unique=True, min_size=1),
    free=st.integers(0, 100),
)
def test_shares_are_max_min_fair(held: dict[str, int], waiting: list[str], free: int) -> None:
    """All slots are given away, and a client that got one never ends above another by more than that one."""
    shares = fair_shares(waiting, held, free)
    assert sum(shares.values()) == free
    totals = {client: held.get(client, 0) + shares.get(client, 0) for client in waiting}
    for client in shares:
        assert totals[client] <= min(totals.values()) + 1
