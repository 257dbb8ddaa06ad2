"""The DAG runner. It knows stages only as nodes: a `_target_`, fields, and references to other nodes."""
