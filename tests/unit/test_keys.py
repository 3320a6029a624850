"""API keys and their hashes."""

import re

from hypothesis import given
from hypothesis import strategies as st

from utilities.keys import KeyHasher, same_secret


def test_keys_are_256_random_bits_in_hex() -> None:
    """A key is 64 hex characters, and no two are alike."""
    keys = {KeyHasher("pepper").new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)


@given(key=st.text(), salt=st.text(alphabet="0123456789abcdef"), other=st.text())
def test_a_key_matches_its_own_hash_alone(key: str, salt: str, other: str) -> None:
    """Any text verifies against its salted hash, and any other one does not."""
    hasher = KeyHasher("pepper")
    stored = hasher.salted(key, salt)
    assert hasher.matches(key, salt, stored)
    assert hasher.matches(other, salt, stored) is (other == key)


def test_hashes_depend_on_pepper_salt_and_purpose() -> None:
    """Another pepper, another salt and the lookup all give other hashes: none can be had from another."""
    first, second = KeyHasher("pepper"), KeyHasher("another")
    hashes = [
        first.lookup("k"),
        second.lookup("k"),
        first.salted("k", "aa"),
        first.salted("k", "bb"),
        first.salted("k", ""),
    ]
    assert len(set(hashes)) == len(hashes)
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in hashes)


def test_odd_texts_are_compared_without_an_error() -> None:
    """Secrets with characters outside ASCII, lone surrogates included, are compared like any other."""
    assert same_secret("ä\ud800", "ä\ud800")
    assert not same_secret("ä", "a")
