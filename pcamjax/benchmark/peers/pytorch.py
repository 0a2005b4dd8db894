"""PyTorch as a subject of the benchmark, channels_last, eager or by torch.compile."""

from collections.abc import Callable

import numpy as np
import torch

from pcamjax.benchmark.material import Material
from pcamjax.benchmark.peers.torch_networks import TorchNetwork, train_mode, translate


def make_train(material: Material, compiled: bool = False) -> Callable[[], float]:
    """A function that takes one optimizer step and returns the loss when all of it is done."""
    network, device = _network(material)
    train_mode(network.module, material.frozen)
    trained = [parameter for parameter in network.module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, material.case.learning_rate, eps=1e-7, fused=True)
    images = network.images(material.array("inputs")).to(device)
    labels = torch.tensor(material.array("labels"), dtype=torch.long, device=device)

    def mean_loss():
        return torch.nn.functional.cross_entropy(network.module(images), labels)

    if compiled:
        mean_loss = torch.compile(mean_loss)

    def train() -> float:
        loss = mean_loss()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return train


def make_infer(material: Material, compiled: bool = False) -> Callable[[], np.ndarray]:
    """A function that computes the logits [B,2] of the batch."""
    network, device = _network(material)
    network.module.eval()
    images = network.images(material.array("inputs")).to(device)
    forward = network.module
    if compiled:
        torch._inductor.config.freezing = True  # folds BatchNorm into convolutions and packs their kernels
        forward = torch.compile(forward)

    @torch.inference_mode()
    def infer() -> np.ndarray:
        return forward(images).cpu().numpy()

    return infer


def _network(material: Material) -> tuple[TorchNetwork, torch.device]:
    torch.set_flush_denormal(True)  # as TensorFlow and XLA do
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    weights: dict[str, dict[str, np.ndarray]] = {}
    for (*_, layer, role), values in material.variables.items():
        weights.setdefault(layer, {})[role] = values
    network = translate(material.description, weights, material.frozen)
    network.module.to(device)
    return network, device
