"""The layers of a model as VisualDL's page "Graph" reads them.

A document lists nodes (layers, and layers of layers, by path below ``/``), what passes between
them, and edges.  An edge that crosses the border of a layer of layers is drawn in pieces, up to
the border and down again, so that either side can be folded.

Source: VisualDL 2.5.3, ``component/graph/graph_component.py`` (names of the keys).
"""

from __future__ import annotations

import posixpath
from typing import Any

from passl.logs.writers.base import Graph, Node

__all__ = ["graph_document"]

_ROOT = "/"
_INPUT = "/image"


def graph_document(graph: Graph) -> dict[str, Any]:
    """What VisualDL's graph file holds, JSON-able."""
    leaves = [Node("image", "input", 0, graph.input, ""), *graph.nodes]
    nodes: dict[str, dict[str, Any]] = {_ROOT: _entry(_ROOT, graph.model, leaf=False)}
    variables, edges = [], dict[tuple[str, str], dict[str, Any]]()
    for leaf in leaves:
        path = _ROOT + leaf.path
        nodes[path] = _entry(path, f"{posixpath.basename(path)}: {leaf.kind}", leaf=True)
        nodes[path]["attrs"] = {"parameters": leaf.parameters, "output": list(leaf.output)}
        nodes[path]["attr_types"] = {"parameters": "INT", "output": "INTS"}
        _hang(nodes, path)
    for leaf in leaves[1:]:
        here, before = _ROOT + leaf.path, _ROOT + leaf.source if leaf.source else _INPUT
        shape = nodes[before]["attrs"]["output"]
        name = f"{before[1:]} to {leaf.path}"
        variables.append(_variable(name, shape, before, here))
        _connect(nodes, before, here, name)
        for start, end in _pieces(before, here):
            edge = edges.setdefault(
                (start, end), {"from_node": start, "to_node": end, "vars": [], "label": ""}
            )
            edge["vars"].append(name)
            edge["label"] = str(shape) if len(edge["vars"]) == 1 else f"{len(edge['vars'])} tensors"
    for start, end in edges:
        nodes[start]["edge_output_nodes"].append(end)
        nodes[end]["edge_input_nodes"].append(start)
    return {
        "version": "1.0.0",
        "nodes": list(nodes.values()),
        "vars": variables,
        "edges": list(edges.values()),
    }


def _entry(path: str, kind: str, *, leaf: bool) -> dict[str, Any]:
    return {
        "name": path,
        "show_name": path,
        "type": kind,
        "attrs": {},
        "attr_types": {},
        "input_nodes": [],
        "output_nodes": [],
        "input_vars": {},
        "output_vars": {},
        "parent_node": "",
        "children_node": [],
        "edge_input_nodes": [],
        "edge_output_nodes": [],
        "is_leaf_node": leaf,
    }


def _variable(name: str, shape: list[int], start: str, end: str) -> dict[str, Any]:
    return {
        "name": name,
        "shape": shape,
        "type": "tensor",
        "dtype": "float32",
        "value": [],
        "persistable": False,
        "attrs": {},
        "from_node": start,
        "to_nodes": [end],
    }


def _hang(nodes: dict[str, dict[str, Any]], path: str) -> None:
    """Make the layers above a layer known, each once."""
    while path != _ROOT:
        parent = posixpath.dirname(path)
        known = parent in nodes
        if not known:
            nodes[parent] = _entry(parent, posixpath.basename(parent), leaf=False)
        if path not in nodes[parent]["children_node"]:
            nodes[parent]["children_node"].append(path)
        nodes[path]["parent_node"] = parent
        path = parent


def _connect(nodes: dict[str, dict[str, Any]], start: str, end: str, name: str) -> None:
    """Tell both layers, and those around one of them but not both, of what passes."""
    common = posixpath.commonpath([start, end])
    for path in _up_to(start, common):
        nodes[path]["output_nodes"].append(end)
        nodes[path]["output_vars"].setdefault("Y", []).append(name)
    for path in _up_to(end, common):
        nodes[path]["input_nodes"].append(start)
        nodes[path]["input_vars"].setdefault("X", []).append(name)


def _pieces(start: str, end: str) -> list[tuple[str, str]]:
    common = posixpath.commonpath([start, end])
    up, down = _up_to(start, common), _up_to(end, common)[::-1]
    return [*zip(up, up[1:]), (up[-1], down[0]), *zip(down, down[1:])]


def _up_to(path: str, above: str) -> list[str]:
    """``path`` and what is around it, the innermost first, without ``above``."""
    found = [path]
    while posixpath.dirname(found[-1]) != above:
        found.append(posixpath.dirname(found[-1]))
    return found
