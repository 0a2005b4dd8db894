"""A network layer by layer: what each puts out, reads and costs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import PyTree

from pcamjax.models import MODELS, frozen_layers, model_spec
from pcamjax.models.graph import Path, layer_graph


class LayerSummary(NamedTuple):
    """A row of the summary.

    Attributes:
      shape: of the output for one image, without the batch.
      parameters: what can be trained.
      statistics: the moving ones of BatchNorm, which cannot.
      flops: two for each multiply-add of a convolution or dense layer in a forward pass of one image; the rest of a
        network (normalisation, activations, pools) is left out, as is usual.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    statistics: int
    flops: int
    reads: tuple[str, ...]


def summarise(network: nn.Module, size: int = 96) -> list[LayerSummary]:
    """The layers of a network in the order of their calls, for images of `size`x`size` pixels."""
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, size, size, 3))))
    rows = []
    for path, layer in layer_graph(network, size).items():
        params, statistics = (_below(variables.get(collection, {}), path) for collection in ("params", "batch_stats"))
        kernels = sum(x.size for name, x in params.items() if name.endswith("kernel"))
        positions = layer.shape[1] * layer.shape[2] if len(layer.shape) == 4 else 1
        rows.append(LayerSummary(layer.name, layer.kind, layer.shape[1:], _size(params), _size(statistics),
                                 2 * kernels * positions, tuple(source[-1] for source in layer.inputs)))
    return rows


def layer_counts(name: str, frozen: str) -> tuple[int, int]:
    """How many layers of a network's backbone are frozen, and how many it has; its input is none of them.

    Raises:
      InputError: as `frozen_layers`.
    """
    return len(frozen_layers(name, frozen)), len(layer_graph(model_spec(name).build().backbone, train=False))


def network_table() -> str:
    """All networks, and the published weights without and with ImageNet's classifier, as two Markdown tables."""
    rows = ["| network | parameters | trained | GFLOPs at 96 | at 224 | preprocessing | CAM layer | frozen through |",
            "|---|---|---|---|---|---|---|---|"]
    for name, spec in MODELS.items():
        flops = [sum(layer.flops for layer in summarise(spec.build(), size)) / 1e9 for size in (96, 224)]
        total, trained = spec.parameters
        rows.append(f"| `{name}` | {total:,} | {trained:,} | {flops[0]:.2f} | {flops[1]:.2f} "
                    f"| `{spec.preprocess.__name__}` | `{spec.cam_layer}` "
                    f"| {', '.join(f'`{layer}`' for layer in spec.frozen_through) or '-'} |")
    rows += ["", "| network | weights | file | MD5 | licence |", "|---|---|---|---|---|"]
    for name, spec in MODELS.items():
        for which in ("imagenet", "imagenet_top") if spec.weights else ():
            file = spec.weights[which]
            rows.append(f"| `{name}` | `{which}` | [{file.name}]({file.url}) | {file.md5 or 'none published'} "
                        f"| {file.licence} |")
    return "\n".join(rows)


def _size(tree: PyTree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def _below(tree: PyTree, path: Path) -> PyTree:
    for name in path:
        tree = tree.get(name, {})
    return tree
