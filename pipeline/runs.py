"""The folder of one run, for people: `runs/<date>_<name>/` with resolved configurations, links and the comparison."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import yaml

from pipeline.graph import COMPARE, Graph
from pipeline.store import Store

_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the C one is ten times faster


def publish_links(folder: Path, graph: Graph, store: Store) -> None:
    """Fills a run's folder: for each point a folder with its configuration and links to its results; at the top, copies
    of the comparison's files."""
    for point in graph.points:
        place = folder / (_file_name(point.label) or "point")
        place.mkdir(parents=True, exist_ok=True)
        fields = {name: graph.config_of(point, name) for name in point.stages}
        (place / "config.yaml").write_text(yaml.dump(fields, Dumper=_Dumper, sort_keys=False))
        for name, key in point.stages.items():
            if store.payload(key).exists():
                _link(place / name, store.payload(key))
    for node in graph.nodes.values():
        if node.name == COMPARE and store.payload(node.key).exists():
            for path in store.payload(node.key).iterdir():
                copy = folder / path.name
                shutil.copyfile(path, copy)  # a real file: it can be opened, sent and moved without the store
    _link(folder.parent / "latest", folder)


def _file_name(label: str) -> str:
    return "".join(c if c.isalnum() or c in "=.,-_" else "_" for c in label)


def _link(link: Path, target: Path) -> None:
    partial = link.with_name(f".{link.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        partial.unlink()
    partial.symlink_to(target.absolute(), target_is_directory=True)
    os.replace(partial, link)
