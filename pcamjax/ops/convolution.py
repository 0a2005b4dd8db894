"""2-D convolution that is fast on a CPU as well as on an accelerator.

Everything here computes what `jax.lax.conv_general_dilated` computes, and on a GPU or TPU it is that. On a CPU it is
the compiled kernels' work, or without them the forms of `xla_cpu`. Differentiable in reverse mode only (`jax.grad`,
not `jax.jvp`).
"""

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pcamjax.ops import compiled, xla_cpu

Padding = Literal["SAME", "VALID"]
Pads = tuple[tuple[int, int], tuple[int, int]]


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c f"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding,
) -> Float[Array, "b oh ow f"]:
    """Cross-correlate `x` with `kernel`."""
    return _convolve(x, kernel, tuple(strides), _pads(x, kernel, strides, padding))


def convolve_depthwise(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw 1 c"],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding,
) -> Float[Array, "b oh ow c"]:
    """Cross-correlate each channel of `x` with its own kernel, a convolution in `c` groups."""
    return _depthwise(x, kernel, tuple(strides), _pads(x, kernel, strides, padding))


def finished_kind(x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw _ f"], strides: tuple[int, int], pads: Pads
                  ) -> str | None:
    """The family of compiled kernels that `finished` takes for a convolution, None where it has none."""
    if x.shape[-1] == kernel.shape[2]:
        return _kind(x, kernel, strides, pads)
    return "depthwise" if x.shape[-1] == kernel.shape[-1] and _is_compiled(x, kernel, strides, pads) else None


def finished_weights(x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw _ f"], strides: tuple[int, int],
                     pads: Pads, scale: Float[Array, " f"]) -> tuple[Float[Array, "..."], ...]:
    """What `finished` wants of a kernel and of the scale of its filters: both, or their product as it will be read.

    That may be kept for as long as both stay what they are. It is zeros where there is no CPU.
    """
    if finished_kind(x, kernel, strides, pads) != "convolve":
        return kernel, scale
    *rows, f = kernel.shape
    shape = (math.prod(rows) * -(-f // compiled.LANES) * compiled.LANES,)
    return (lax.platform_dependent(kernel, scale, cpu=partial(compiled.call, "pcamjax_convolve_packed", shape),
                                   default=lambda *_: jnp.zeros(shape)),)


def finished(x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw _ f"], strides: tuple[int, int], pads: Pads,
             weights: tuple[Float[Array, "..."], ...], shift: Float[Array, " f"], added: Float[Array, "..."],
             limits: Float[Array, "2"], gain: Float[Array, "..."], offset: Float[Array, "..."]
             ) -> Float[Array, "b oh ow f"]:
    """clip(convolution * scale + shift + added, *limits) * gain + offset in one pass by a kernel of `finished_kind`.

    `weights` are `finished_weights`, `added` has the shape of the result, `gain` and `offset` that of `shift`; without
    elements they are left out, and to a depthwise convolution nothing can be added. On a CPU alone, and not
    differentiable.
    """
    kind, geometry = finished_kind(x, kernel, strides, pads), _geometry(strides, pads)
    if kind == "convolve":
        geometry |= {"rows": kernel.shape[0], "columns": kernel.shape[1]}
    shape = (len(x), *_size(x, kernel, strides, pads), kernel.shape[-1])
    return compiled.call(f"pcamjax_{kind}_finished", shape, x, *weights, shift, limits, added, gain, offset, **geometry)


def _pads(x, kernel, strides, padding):
    return tuple(lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding))


def _native(x, kernel, strides, pads):
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                                    feature_group_count=x.shape[-1] // kernel.shape[2])


def _native_gradients(x, kernel, gradient, strides, pads):
    return jax.vjp(partial(_native, strides=strides, pads=pads), x, kernel)[1](gradient)


def _on_platform(cpu, default, *arrays, strides, pads):
    dtype = arrays[0].dtype

    def on_cpu(*arrays):
        # A CPU multiplies no narrower numbers than these, and sums of products need their digits.
        wide = (x.astype(jnp.promote_types(dtype, jnp.float32)) for x in arrays)
        return jax.tree.map(lambda y: y.astype(dtype), cpu(*wide, strides=strides, pads=pads))

    return lax.platform_dependent(*arrays, cpu=on_cpu, default=partial(default, strides=strides, pads=pads))


def _size(x, kernel, strides, pads):
    """Rows and columns of the output."""
    return tuple((n + sum(pad) - k) // stride + 1
                 for n, pad, k, stride in zip(x.shape[1:3], pads, kernel.shape[:2], strides, strict=True))


def _geometry(strides, pads):
    return {"down": strides[0], "right": strides[1], "top": pads[0][0], "left": pads[1][0]}


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(x, kernel, strides, pads):
    return _on_platform(_convolve_on_cpu, _native, x, kernel, strides=strides, pads=pads)


def _convolve_forward(x, kernel, strides, pads):
    return _on_platform(_train_on_cpu, _native, x, kernel, strides=strides, pads=pads), (x, kernel)


def _convolve_backward(strides, pads, residuals, gradient):
    return _on_platform(_gradients_on_cpu, _native_gradients, *residuals, gradient, strides=strides, pads=pads)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _kind(x, kernel, strides, pads):
    """The family of compiled kernels for a convolution, None where there is none."""
    rows, columns = _size(x, kernel, strides, pads)
    if not _can_be_compiled(x, kernel, rows * columns):
        return None
    c, f = kernel.shape[2:]
    if kernel.shape[:2] == (3, 3) and strides == (1, 1) and c % compiled.LANES == f % compiled.LANES == 0:
        # With fewer channels, fewer tiles or tiles half empty the transforms outweigh the products saved.
        tiles = -(-rows // 4) * -(-columns // 4)
        if c * f >= 32 * 32 and rows * columns > 0.4 * 16 * tiles and len(x) * tiles >= 96:
            return "winograd"
    return "convolve"


def _can_be_compiled(x, kernel, positions):
    return (x.dtype == kernel.dtype == jnp.float32 and x.size and kernel.size and positions > 0
            and compiled.available())


def _convolve_on_cpu(x, kernel, strides, pads):
    if kind := _kind(x, kernel, strides, pads):
        shape = (len(x), *_size(x, kernel, strides, pads), kernel.shape[-1])
        return compiled.call(f"pcamjax_{kind}", shape, x, kernel, **_geometry(strides, pads))
    if _is_pointwise(kernel):
        return xla_cpu.pointwise(_every(x, strides), kernel)
    return _native(x, kernel, strides, pads)


def _train_on_cpu(x, kernel, strides, pads):
    """The forward pass of training; that of inference fuses better as it is."""
    if _kind(x, kernel, strides, pads) or _is_pointwise(kernel) or strides != (1, 1) or pads != ((0, 0), (0, 0)):
        return _convolve_on_cpu(x, kernel, strides, pads)
    # Without padding XLA's kernel took 2 to 4 times as long; one row too many at the bottom is cheaper.
    return _native(x, kernel, strides, ((0, 1), (0, 0)))[:, :-1]


def _gradients_on_cpu(x, kernel, gradient, strides, pads):
    if kind := _kind(x, kernel, strides, pads):
        geometry = _geometry(strides, pads)
        return (compiled.call(f"pcamjax_{kind}_by_input", x.shape, gradient, kernel, **geometry),
                compiled.call(f"pcamjax_{kind}_by_kernel", kernel.shape, x, gradient, **geometry))
    if _is_pointwise(kernel):
        return jax.vjp(lambda x, kernel: xla_cpu.pointwise(_every(x, strides), kernel), x, kernel)[1](gradient)
    by_input, by_kernel = _native_gradients(x, kernel, gradient, strides, pads)
    if strides == (1, 1):
        by_kernel = xla_cpu.kernel_gradient(x, gradient, kernel.shape[:2], pads)
    return by_input, by_kernel


def _is_pointwise(kernel):
    return kernel.shape[:2] == (1, 1)


def _every(x, strides):
    """The positions that a pointwise convolution reads."""
    return x[:, :: strides[0], :: strides[1]]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, strides, pads):
    return _on_platform(_depthwise_on_cpu, _native, x, kernel, strides=strides, pads=pads)


def _depthwise_forward(x, kernel, strides, pads):
    return _depthwise(x, kernel, strides, pads), (x, kernel)


def _depthwise_backward(strides, pads, residuals, gradient):
    return _on_platform(_depthwise_gradients_on_cpu, _native_gradients, *residuals, gradient, strides=strides,
                        pads=pads)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _is_compiled(x, kernel, strides, pads):
    rows, columns = _size(x, kernel, strides, pads)
    return (kernel.shape[:2] == (3, 3) and x.shape[-1] >= compiled.LANES
            and _can_be_compiled(x, kernel, rows * columns))


def _depthwise_on_cpu(x, kernel, strides, pads):
    if _is_compiled(x, kernel, strides, pads):
        shape = (len(x), *_size(x, kernel, strides, pads), x.shape[-1])
        return compiled.call("pcamjax_depthwise", shape, x, kernel, **_geometry(strides, pads))
    return xla_cpu.shifted_products(x, kernel, strides, pads)


def _depthwise_gradients_on_cpu(x, kernel, gradient, strides, pads):
    if _is_compiled(x, kernel, strides, pads):
        geometry = _geometry(strides, pads)
        return (compiled.call("pcamjax_depthwise_by_input", x.shape, gradient, kernel, **geometry),
                compiled.call("pcamjax_depthwise_by_kernel", kernel.shape, x, gradient, **geometry))
    return xla_cpu.depthwise_gradients(x, kernel, gradient, strides, pads)
