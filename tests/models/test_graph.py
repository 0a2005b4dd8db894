"""The graph of a small network with branches: what reads what, Keras' order, and what lies upstream."""

import pytest
from flax import linen as nn

from pcamjax.models.graph import keras_order, layer_graph, upstream
from pcamjax.models.layers import Add, BatchNorm, Concatenate, Conv, Dropout, Relu


class Block(nn.Module):
    """Two layers, and so none itself; its BatchNorm is one layer, though linen's stands behind it."""

    @nn.compact
    def __call__(self, x, *, train):
        return Relu(name="relu")(BatchNorm(name="norm")(x, train=train))


class Branches(nn.Module):
    """Behind the stem a long and a short branch, called in this order, joined in any, and added to their source."""

    joined: tuple[str, str] = ("short", "long2")

    @nn.compact
    def __call__(self, x, *, train):
        x = Block(name="block")(Conv(4, (3, 3), name="stem")(x), train=train)
        Conv(7, (1, 1), name="unused")(x)
        branches = {"long2": Conv(2, (3, 3), name="long2")(Conv(3, (1, 1), name="long1")(x)),
                    "short": Conv(2, (1, 1), name="short")(x)}
        both = Concatenate(name="both")([branches[name] for name in self.joined])
        return Dropout(0.5, name="last")(Add(name="add")(both, x), train=train)


GRAPH = layer_graph(Branches(), 10, train=False)


def test_layers_come_in_the_order_of_their_calls_with_what_they_read_and_put_out():
    assert [(layer.name, layer.kind, [path[-1] for path in layer.inputs], layer.shape) for layer in GRAPH.values()] == [
        ("stem", "Conv", [], (1, 10, 10, 4)),
        ("norm", "BatchNorm", ["stem"], (1, 10, 10, 4)),
        ("relu", "Relu", ["norm"], (1, 10, 10, 4)),
        ("unused", "Conv", ["relu"], (1, 10, 10, 7)),
        ("long1", "Conv", ["relu"], (1, 10, 10, 3)),
        ("long2", "Conv", ["long1"], (1, 10, 10, 2)),
        ("short", "Conv", ["relu"], (1, 10, 10, 2)),
        ("both", "Concatenate", ["short", "long2"], (1, 10, 10, 4)),
        ("add", "Add", ["both", "relu"], (1, 10, 10, 4)),
        ("last", "Dropout", ["add"], (1, 10, 10, 4))]
    assert ("block", "norm") in GRAPH and all(layer.path == path for path, layer in GRAPH.items())


@pytest.mark.parametrize("joined, last", [(("short", "long2"), ["short", "long2"]),
                                          (("long2", "short"), ["long2", "short"])])
def test_keras_lists_the_deepest_first_then_by_a_walk_from_the_output(joined, last):
    order = [layer.name for layer in keras_order(layer_graph(Branches(joined), 10, train=False))]
    assert order == ["stem", "norm", "relu", "long1", *last, "both", "add", "last"]


def test_upstream_of_a_layer_is_all_that_it_is_computed_from():
    assert upstream(GRAPH, ["long2"]) == {"stem", "norm", "relu", "long1", "long2"}
    assert upstream(GRAPH, ["norm", "short"]) == {"stem", "norm", "relu", "short"}
    assert upstream(GRAPH, ["last"]) == {layer.name for layer in GRAPH.values()} - {"unused"}
    with pytest.raises(KeyError):
        upstream(GRAPH, ["long3"])
