"""API keys: how they are made, and the keyed hashes that are stored in their place."""

import hmac
import secrets

KEY_BYTES = 32
SALT_BYTES = 16
_LOOKUP = b"lookup|"
_VERIFY = b"verify|"


class KeyHasher:
    """Hashes keys of 256 random bits under a pepper that is not in the database.

    A key that cannot be guessed needs no slow hash: HMAC-SHA-256 costs microseconds (see docs/decisions/0010). All
    hashes and salts are lower-case hex.
    """

    def __init__(self, pepper: str) -> None:
        self._pepper = pepper.encode()

    def new_key(self) -> str:
        """64 hex characters, 256 random bits."""
        return secrets.token_hex(KEY_BYTES)

    def new_salt(self) -> str:
        return secrets.token_hex(SALT_BYTES)

    def lookup(self, key: str) -> str:
        """The same for the same key, so that a key alone finds its record."""
        return self._digest(_LOOKUP + _bytes(key))

    def salted(self, key: str, salt: str) -> str:
        """The HMAC over salt and key, to verify a key against its record."""
        return self._digest(_VERIFY + salt.encode() + _bytes(key))

    def matches(self, key: str, salt: str, stored: str) -> bool:
        """Whether `stored` is the salted hash of `key`, compared in constant time."""
        return same_secret(self.salted(key, salt), stored)

    def _digest(self, message: bytes) -> str:
        return hmac.digest(self._pepper, message, "sha256").hex()


def same_secret(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell how much of them is."""
    return hmac.compare_digest(_bytes(given), _bytes(expected))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
