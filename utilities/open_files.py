"""How many files and connections this process may have open."""

import sys


def allow_most() -> None:
    """Raises the soft limit to the hard one: a stream takes two connections, and shells give 1,024 in all.

    Source: POSIX setrlimit, which lets every process do so; does nothing where there is no such limit.
    """
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not there on Windows

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (ValueError, OSError):  # macOS takes no more than the kernel has, and says infinity
        return
