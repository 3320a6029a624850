"""Random draws that any process can repeat."""

from utilities.draws import draws

PINNED = 171_621
"""What the first draw was when this was written: another one would break the resume of stored runs."""


def test_a_draw_depends_on_its_three_arguments_alone() -> None:
    """The same arguments give the same numbers, in this process and in any other; each argument counts."""
    assert draws(7, "minibatch", 3).random() == draws(7, "minibatch", 3).random()
    assert [draws(7, "minibatch", 0).randrange(10**6) for _ in range(2)] == [PINNED, PINNED]
    others = [draws(7, "minibatch", 4), draws(7, "parent", 3), draws(8, "minibatch", 3), draws("7", "minibatch", 3)]
    assert draws(7, "minibatch", 3).random() not in [other.random() for other in others]
