"""Verbs about what is in the store: logs, explain, force, verify, pin, unpin, gc."""

from rich.text import Text

from pipeline import upkeep
from pipeline.config import nearest
from pipeline.errors import UsageError
from pipeline.graph import Graph, Node, show
from pipeline.plan import differences, flat
from pipeline.progress import title
from pipeline.store import Manifest, Store
from pipeline.verbs import Request, Verb


def logs(request: Request) -> int:
    """`tilt logs STAGE …`: what the stage printed, from its result or its last failure."""
    store = request.store
    for node in _named(request, request.graph()):
        found = [store.object(node.key) / "log.txt", store.root / "failures" / node.key / "log.txt"]
        path = next((path for path in found if path.exists()), None)
        request.console.print(Text(f"{title(node)}  {path or 'has no log'}", style="bold"), soft_wrap=True)
        if path:
            request.console.print(path.read_text(errors="replace"), markup=False, highlight=False, soft_wrap=True)
    return 0


def explain(request: Request) -> int:
    """`tilt explain KEY [KEY2]`: what a key is made of, or how two differ. The beginning of a key is enough."""
    store = request.store
    manifests = [_by_key(store, word) for word in request.words]
    if not 1 <= len(manifests) <= 2:
        raise UsageError("tilt explain: give one key, or two to compare")
    first = manifests[0]
    if len(manifests) == 2:
        lines = list(differences(manifests[1], first)) or ["nothing: the keys are the same"]
        request.console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
        return 0
    lines = [f"{first.stage}  {first.key}", f"class    {first.preimage['stage']}"]
    lines += [f"ran      {first.started} on {first.host}, {first.seconds:.1f} s, commit {first.commit[:12] or 'none'}"]
    lines += [f"input    {name}  {key}" for name, key in first.inputs.items()]
    lines += [f"config   {path} = {show(value)}" for path, value in flat(first.preimage["config"]).items()]
    lines += [f"code     {module} ({len(names)} definitions)" for module, names in first.code.items()]
    lines += [f"metric   {name} = {value:.6g}" for name, value in first.metrics.items()]
    lines += [f"file     {name}  {entry['size']:,} bytes" for name, entry in first.files.items()]
    request.console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    return 0


def force(request: Request) -> int:
    """`tilt force STAGE … [--downstream]`: removes results, so that the next run makes them again."""
    graph, store = request.graph(), request.store
    keys = {node.key for node in _named(request, graph)}
    if "--downstream" in request.flags:
        keys |= {key for key in graph.nodes if keys & set(graph.ancestors(key))}
    for key in [key for key in graph.nodes if key in keys]:
        done = upkeep.forget(store, key)
        request.console.print(
            f"{title(graph.nodes[key])}: {'will run again' if done else 'there was nothing to forget'}"
        )
    return 0


def verify(request: Request) -> int:
    """`tilt verify [--quick]`: compares objects with their manifests; damaged ones go to quarantine, exit code 1."""
    store = request.store
    bad = upkeep.damaged(store, quick="--quick" in request.flags)
    for key, problem in bad.items():
        place = store.quarantine(key)
        request.console.print(f"{key[:12]}: {problem}; moved to {place}", soft_wrap=True)
    count = sum(1 for _ in (store.root / "objects").glob("*/*"))
    request.console.print(f"{count} objects are whole, {len(bad)} were not")
    return 1 if bad else 0


def gc(request: Request) -> int:
    """`tilt gc [--keep-runs 30d] [--dry-run]`: removes what no run or pin needs, and what dead attempts left."""
    store = request.store
    keep = upkeep.seconds(request.ages.get("--keep-runs", "30d"))
    dry = "--dry-run" in request.flags
    objects, staging = upkeep.collect(store, keep, dry_run=dry)
    for key in objects:
        request.console.print(f"{'would remove' if dry else 'removed'} {key[:12]}")
    request.console.print(
        f"{'would remove' if dry else 'removed'} {len(objects)} objects and {len(staging)} abandoned attempts"
    )
    return 0


def pin(request: Request) -> int:
    """`tilt pin name=paper -m …`: keeps `gc` from removing what these points need, until `tilt unpin name=paper`."""
    graph = request.graph()
    upkeep.pin(request.store, str(request.config.name), graph)
    request.console.print(f"pinned {len(graph.nodes)} stages as {request.config.name}")
    return 0


def unpin(request: Request) -> int:
    """`tilt unpin name=paper`: takes a pin back. 2 where there is none of that name."""
    if not upkeep.unpin(request.store, str(request.config.name)):
        raise UsageError(f"name: nothing is pinned as '{request.config.name}'")
    request.console.print(f"unpinned {request.config.name}")
    return 0


def _named(request: Request, graph: Graph) -> list[Node]:
    names = [node.name for node in graph.nodes.values()]
    for word in request.words:
        if word not in names:
            raise UsageError(f"there is no stage '{word}' in this graph{nearest(word, names)}")
    if not request.words:
        raise UsageError(f"name a stage ({', '.join(dict.fromkeys(names))})")
    return [node for node in graph.nodes.values() if node.name in request.words]


def _by_key(store: Store, word: str) -> Manifest:
    found = [path.name for path in (store.root / "objects").glob(f"{word[:2]}/{word}*")]
    if len(found) != 1:
        raise UsageError(f"tilt explain: {len(found)} published objects have a key that begins with '{word}'")
    manifest = store.find(found[0])
    if manifest is None:
        raise UsageError(f"tilt explain: the object {found[0][:12]} is damaged; run tilt verify")
    return manifest


STORE_VERBS: dict[str, Verb] = {
    "logs": logs,
    "explain": explain,
    "force": force,
    "verify": verify,
    "pin": pin,
    "unpin": unpin,
    "gc": gc,
}
