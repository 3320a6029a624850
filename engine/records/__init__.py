"""Stored resources other than jobs: values and the protocols of their stores."""
