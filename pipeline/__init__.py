"""Runs graphs of stages. It imports nothing else of this project: a stage is a `_target_`, fields, and references to
other stages; `protocol.py` says what it must have."""
