"""Prefect flows, tasks and the `edi` command. Importing this package imports nothing heavy."""

from importlib.metadata import version

#: The version of EDI, stored with each boundary that no engine made.
VERSION = version("edi-edit")
