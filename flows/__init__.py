"""Prefect flows, tasks and the `edi` command. Importing this package imports nothing heavy."""

#: The version of EDI; the package takes it from here.
VERSION = "0.1.0"
