"""Which model graphs can continue a text: causal transformers over byte tokens. No torch.

A graph is one when every node keeps positions apart, except attention that looks back only. Then the output at a
position depends on the tokens up to it and on nothing else: decoding may keep keys and values, the input may be shorter
than the graph says, and one pass over a whole answer gives what each of its tokens was chosen from. Everything else is
refused, with the node's name.
"""

from __future__ import annotations

from typing import NoReturn

from ..protocol.cid import cid_of
from ..protocol.errors import LocalError
from ..protocol.inference import InferTask, ModelFiles, check_manifest, check_task
from .graph import INPUT, Graph, Node, parse_graph
from .tokens import VOCABULARY, encode_prompt

_POSITION_WISE = frozenset(
    {"Embedding", "PositionEmbedding", "Linear", "ReLU", "GELU", "SiLU", "Tanh", "Sigmoid", "Dropout", "Add", "Mul"}
)
_ATTENTION = frozenset({"MultiheadSelfAttention", "TransformerBlock"})
_LAST_DIM = {"Softmax": (-1, 2), "Concat": (2,)}
_ALLOWED = ", ".join(sorted(_POSITION_WISE | _ATTENTION | set(_LAST_DIM) | {"LayerNorm"}))


def parse_causal_graph(text: bytes) -> Graph:
    """A checked graph that can continue a text. Raises LocalError with the path of what cannot."""
    graph = parse_graph(text)
    if graph.input_dtype != "int64" or len(graph.input_shape) != 1:
        _refuse("input", "is not one row of tokens", '"shape": [context length], "dtype": "int64"')
    length = graph.input_shape[0]
    for node in graph.nodes:
        _check_node(node, graph, length)
    if graph.output_shape != (length, VOCABULARY):
        fix = f"end with logits of shape [{length}, {VOCABULARY}]: 256 bytes and the end token"
        _refuse("output", f"has shape {list(graph.output_shape)}", fix)
    if graph.index_limit is None or graph.index_limit < VOCABULARY:
        _refuse("nodes", f"embeds {graph.index_limit} tokens", f'"num_embeddings": {VOCABULARY}')
    return graph


def _check_node(node: Node, graph: Graph, length: int) -> None:
    path = f"nodes[{node.position}]"
    shape = graph.shapes[node.id]
    if node.op in _ATTENTION:
        if not node.args["causal"]:
            _refuse(f"{path}.args.causal", f"lets node {node.id} look ahead", '"causal": true')
    elif node.op == "LayerNorm":
        if node.args["normalized_shape"] != shape[-1:]:
            _refuse(f"{path}.args.normalized_shape", f"lets node {node.id} mix positions", f"[{shape[-1]}]")
    elif node.op in _LAST_DIM:
        if node.args["dim"] not in _LAST_DIM[node.op]:
            _refuse(f"{path}.args.dim", f"lets node {node.id} mix positions", f'"dim": {_LAST_DIM[node.op][-1]}')
    elif node.op not in _POSITION_WISE:
        _refuse(f"{path}.op", f"node {node.id} ({node.op}) cannot stand in a model of text", f"use {_ALLOWED}")
    # holds by the rules above; decoding relies on it
    if len(shape) != 2 or shape[0] != length:
        _refuse(path, f"node {node.id} has shape {list(shape)}", f"keep [{length}, width]")
    if node.op != "Embedding" and INPUT in node.inputs:
        _refuse(f"{path}.in", f"node {node.id} reads tokens as numbers", "put an Embedding first")


def _refuse(path: str, message: str, fix: str) -> NoReturn:
    raise LocalError(message, field=f"model.{path}", fix=fix)


def check_model(model: ModelFiles) -> Graph:
    """The graph of a torch model whose manifest, graph and weights belong together. Raises LocalError.

    Layout and values of the weights are checked when they are loaded.
    """
    manifest = model.manifest
    check_manifest(manifest)
    if manifest.kind != "torch":
        raise LocalError(f"is {manifest.kind}", field="model.kind", fix="this backend runs torch models")
    if cid_of(model.graph) != manifest.graph_cid:
        raise LocalError(
            "is not the graph that was loaded", field="model.graph_cid", fix=f"it is {cid_of(model.graph)}"
        )
    graph = parse_causal_graph(model.graph)
    if manifest.context_length != graph.input_shape[0]:
        fix = f"the graph takes {graph.input_shape[0]}"
        raise LocalError(f"is {manifest.context_length}", field="model.context_length", fix=fix)
    return graph


def encode_task(task: InferTask, context: int) -> tuple[tuple[int, ...], ...]:
    """The tokens of each prompt of a checked task; each leaves room for one more. Raises LocalError."""
    check_task(task)
    prompts = tuple(encode_prompt(task.system, prompt) for prompt in task.prompts)
    for index, tokens in enumerate(prompts):
        if len(tokens) >= context:
            message = f"has {len(tokens)} tokens with the system text, and the context of the model is {context}"
            raise LocalError(message, field=f"task.prompts[{index}]", fix=f"at most {context - 1}")
    return prompts
