"""A library user's way: python examples/explain_patches.py runs/demo

Creates a network, loads a finished run, scores patches that lie in memory and asks where the scores come from.
"""

import sys

import jax
import jax.numpy as jnp

import pcamjax
from pcamjax.data.synthetic import generate

network = pcamjax.create("scratch1")
shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 96, 96, 3)))
print("scratch1:", sum(leaf.size for leaf in jax.tree.leaves(shapes)), "parameters")

run = pcamjax.load_run(sys.argv[1])
patches = generate(8, seed=1, part="test")  # any uint8 array [n,96,96,3] will do
scores = pcamjax.predict(run, patches.images)
made = pcamjax.heat_maps(run, patches.images)

for label, score, heat, zero in zip(patches.labels, scores, made.maps, made.is_zero, strict=True):
    centre = heat[32:64, 32:64].sum() / heat.sum() if not zero else float("nan")
    print(f"label {label}  score {score:.3f}  share of the map in the centre 32x32: {centre:.2f} (chance 0.11)")
