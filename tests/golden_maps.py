"""A network in flax and in PyTorch with the same weights, and the maps that pytorch-grad-cam draws of it.

`pip install grad-cam; python tests/golden_maps.py` made golden_maps.npz (grad-cam 1.5.7, torch 2.13.0,
2026-11-24), so that the tests need neither.
"""

from pathlib import Path

import jax
import numpy as np
from flax import linen as nn

FILE = Path(__file__).with_suffix(".npz")
LAYERS = {"block1": (3, 6), "block2": (6, 8)}
SIZE, HIDDEN = 24, 10
CASES = {"block2": ["block2"], "block1": ["block1"], "both": ["block1", "block2"]}
TARGETS = {"class": 1, "margin": "margin"}


class Block(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(self.channels, (3, 3), padding=1, name="conv")(x))


class Net(nn.Module):
    """Its classifier reads positions apart, so that gradients differ between them."""

    @nn.compact
    def __call__(self, x):
        x = nn.max_pool(Block(6, name="block1")(x), (2, 2), (2, 2))
        x = nn.max_pool(Block(8, name="block2")(x), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(HIDDEN, name="hidden")(x.reshape(len(x), -1)))
        return nn.Dense(2, name="logits")(x)


def parameters() -> dict:
    """The flax parameters. The biases make both logits positive, which Ablation-CAM as published needs."""
    rng = np.random.default_rng(0)

    def layer(*shape):
        kernel = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        return {"kernel": kernel.astype(np.float32), "bias": rng.normal(0, 0.1, shape[-1]).astype(np.float32)}

    blocks = {name: {"conv": layer(3, 3, *channels)} for name, channels in LAYERS.items()}
    logits = layer(HIDDEN, 2)
    logits["bias"] += np.array([4, 6], np.float32)
    return blocks | {"hidden": layer(SIZE // 4 * SIZE // 4 * 8, HIDDEN), "logits": logits}


def images() -> jax.Array:
    """Three smooth random images [3,24,24,3]."""
    coarse = np.random.default_rng(1).normal(size=(3, 6, 6, 3)).astype(np.float32)
    return jax.image.resize(coarse, (3, SIZE, SIZE, 3), "cubic")


def main() -> None:
    import pytorch_grad_cam
    import torch
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    class Torch(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, (before, after) in LAYERS.items():
                setattr(self, name, torch.nn.Sequential(torch.nn.Conv2d(before, after, 3, padding=1), torch.nn.ReLU()))
            self.hidden = torch.nn.Linear(SIZE // 4 * SIZE // 4 * 8, HIDDEN)
            self.logits = torch.nn.Linear(HIDDEN, 2)

        def forward(self, x):
            for name in LAYERS:
                x = torch.nn.functional.max_pool2d(getattr(self, name)(x), 2)
            return self.logits(torch.relu(self.hidden(x.permute(0, 2, 3, 1).flatten(1))))

    network, weights = Torch().eval(), parameters()
    with torch.no_grad():
        for name in LAYERS:
            conv = getattr(network, name)[0]
            conv.weight.copy_(torch.tensor(weights[name]["conv"]["kernel"].transpose(3, 2, 0, 1)))
            conv.bias.copy_(torch.tensor(weights[name]["conv"]["bias"]))
        for name in ("hidden", "logits"):
            getattr(network, name).weight.copy_(torch.tensor(weights[name]["kernel"].T))
            getattr(network, name).bias.copy_(torch.tensor(weights[name]["bias"]))
    x = torch.tensor(np.array(images()).transpose(0, 3, 1, 2))
    methods = {"grad_cam": "GradCAM", "grad_cam_plus_plus": "GradCAMPlusPlus", "hires_cam": "HiResCAM",
               "layer_cam": "LayerCAM", "xgrad_cam": "XGradCAM", "score_cam": "ScoreCAM", "ablation_cam": "AblationCAM"}
    scores = {"class": lambda logits: logits[1], "margin": lambda logits: logits[1] - logits[0]}
    made = {"logits": network(x).detach().numpy()}
    for case, layers in CASES.items():
        for target, score in scores.items():
            for name, theirs in methods.items():
                drawn = getattr(pytorch_grad_cam, theirs)(network, [getattr(network, layer) for layer in layers])
                made[f"{name} {case} {target}"] = drawn(x, [score] * len(x))
        if len(layers) == 1:
            drawn = pytorch_grad_cam.EigenCAM(network, [getattr(network, layers[0])])
            drawn(x, None)
            made[f"eigen_cam {case}"] = get_2d_projection(drawn.activations_and_grads.activations[0].numpy())
    np.savez_compressed(FILE, **{name: value.astype(np.float32) for name, value in made.items()})


if __name__ == "__main__":
    main()
