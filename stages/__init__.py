"""The stages of an experiment, one verb per room; `records.py` holds the types that pass between them."""
