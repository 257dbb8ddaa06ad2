"""Stages that are computed in parts: each shard is in the store by itself, and the whole is merged from them.

The whole has the key that it has without shards, since its result is the same. A shard's key is made of the same parts
and of (its index, how many shards there are).
"""

import dataclasses

from pipeline.code import declares
from pipeline.errors import UsageError
from pipeline.graph import Graph, Node
from pipeline.keys import digest
from pipeline.store import Store


def shards(node: Node) -> list[Node]:
    """The shards of a node, in order. Raises UsageError where its class cannot be split."""
    count = node.resources.shards
    if not declares(node.target, "run_shard"):
        name = node.target.rpartition(".")[2]
        raise UsageError(f"{node.config_key('resources.shards')}: {name} cannot be split; leave it at 1")
    made = []
    for index in range(count):
        image = node.preimage | {"shard": [index, count]}
        made.append(dataclasses.replace(node, key=digest(image), preimage=image, shard=(index, count), whole=node.key))
    return made


def split(graph: Graph, store: Store) -> None:
    """Puts the shards of every node into the graph that asks for shards and is not published yet."""
    for node in list(graph.nodes.values()):
        if node.resources.shards > 1 and not node.shard:
            parts = shards(node)
            if store.find(node.key) is None:
                node.parts = [part.key for part in parts]
                graph.nodes |= {part.key: part for part in parts}
    graph.sort()
