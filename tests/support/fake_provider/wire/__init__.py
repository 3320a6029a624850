"""Vendors' wire formats. To add one: a file with a `Wire`, and a line in `server.WIRES`."""
