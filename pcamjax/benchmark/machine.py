"""What the machine can do at all, measured through JAX: a product of matrices, and streaming through its memory."""

from functools import partial

import jax
import jax.numpy as jnp

from pcamjax.benchmark.material import Material
from pcamjax.benchmark.subjects import Work


def product_size(on_cpu: bool) -> int:
    """Rows and columns of the matrices: about 0.1 s on two cores, tens of milliseconds on an accelerator."""
    return 2048 if on_cpu else 8192


def make_product(material: Material) -> Work:
    """The product of two square matrices in the case's precision."""
    size = product_size(jax.default_backend() == "cpu")
    a, b = (jax.random.normal(key, (size, size), material.case.precision)
            for key in jax.random.split(jax.random.key(material.case.seed)))
    multiply = jax.jit(jnp.matmul)
    return Work(lambda: jax.block_until_ready(multiply(a, b))[0, 0], {"flops": 2 * size**3})


def make_bandwidth(material: Material) -> Work:
    """a <- a + 2 b over arrays that no cache holds; what is read and written is three of them."""
    count = 2**25 if jax.default_backend() == "cpu" else 2**28
    a, b = jnp.zeros(count), jnp.ones(count)

    @partial(jax.jit, donate_argnums=0)
    def add(a, b):
        return a + 2 * b

    def run() -> float:
        nonlocal a
        a = jax.block_until_ready(add(a, b))
        return 0.0

    return Work(run, {"bytes": 3 * a.nbytes})
