"""PyTorch as a subject of the benchmark, channels_last, eager or by torch.compile."""

import numpy as np
import torch

from pcamjax.benchmark.machine import product_size
from pcamjax.benchmark.material import Material
from pcamjax.benchmark.memory import peak_memory
from pcamjax.benchmark.peers.torch_networks import TorchNetwork, train_mode, translate
from pcamjax.benchmark.subjects import Work


def make_train(material: Material, compiled: bool = False) -> Work:
    """One optimizer step."""
    network, device, precision = _network(material)
    frozen = material.frozen()
    train_mode(network.module, frozen)
    trained = [parameter for parameter in network.module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, material.case.learning_rate, eps=1e-7, fused=True)
    images = network.images(material.array("inputs")).to(device)
    labels = torch.tensor(material.array("labels"), dtype=torch.long, device=device)

    def mean_loss():
        with precision:
            return torch.nn.functional.cross_entropy(network.module(images), labels)

    if compiled:
        mean_loss = torch.compile(mean_loss)

    def run() -> float:
        loss = mean_loss()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Work(run, peak_bytes=_peak_bytes)


def make_infer(material: Material, compiled: bool = False) -> Work:
    """The logits [B,2] of the batch."""
    network, device, precision = _network(material)
    forward = network.module.eval()
    images = network.images(material.array("inputs")).to(device)
    if compiled:
        torch._inductor.config.freezing = True  # folds BatchNorm into convolutions and packs their kernels
        forward = torch.compile(forward)

    @torch.inference_mode()
    def run() -> np.ndarray:
        with precision:
            return forward(images).float().cpu().numpy()

    return Work(run, peak_bytes=_peak_bytes)


def make_grad_cam(material: Material, stop_at_layer: bool = False) -> Work:
    """Heat maps of the batch by pytorch-grad-cam, at its own size, at the layer where ours are.

    It differentiates all that wants a gradient, as a model does that was loaded and no more: `stop_at_layer` spares it
    what lies before the layer, by settings that are its user's to find.
    """
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, device, _ = _network(material)
    module = network.module.eval().requires_grad_(not stop_at_layer)
    modules = dict(module.named_modules())
    layer = modules.get(f"{material.cam_layer()}__activation", modules.get(material.cam_layer()))
    if stop_at_layer:
        layer.register_forward_hook(lambda called, inputs, output: output.requires_grad_())
    cam = GradCAM(module, [layer])
    images, targets = network.images(material.array("inputs")).to(device), [ClassifierOutputTarget(1)]
    return Work(lambda: cam(images, targets * len(images)).mean(), peak_bytes=_peak_bytes)


def make_product(material: Material) -> Work:
    """The product of two square matrices in the case's precision: the machine's peak may be here."""
    device = _device()
    size, dtype = product_size(device.type == "cpu"), getattr(torch, material.case.precision)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return Work(lambda: (a @ b)[0, 0].item(), {"flops": 2 * size**3})


def _network(material: Material) -> tuple[TorchNetwork, torch.device, torch.autocast]:
    torch.set_flush_denormal(True)  # as TensorFlow and XLA do
    torch.backends.cudnn.benchmark = True
    device = _device()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as JAX and TensorFlow have it
    weights: dict[str, dict[str, np.ndarray]] = {}
    for (*_, layer, role), values in material.variables().items():
        weights.setdefault(layer, {})[role] = values
    network = translate(material.description(), weights, material.frozen())
    network.module.to(device)
    return network, device, torch.autocast(device.type, torch.bfloat16, material.case.precision == "bfloat16")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _peak_bytes() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory()
