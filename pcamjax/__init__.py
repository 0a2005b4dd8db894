"""Detection of metastatic tissue in H&E patches of lymph nodes, and pictures that show why, in JAX and Flax.

The few names that most scripts need are here; each is imported on first use, so that `import pcamjax` is immediate.
"""

import importlib

__version__ = "0.1.0"

_NAMES = {"create": "pcamjax.models", "MODELS": "pcamjax.models", "load": "pcamjax.weights",
          "export_keras": "pcamjax.weights", "InputError": "pcamjax.errors",
          "Patches": "pcamjax.data.store", "make_split": "pcamjax.data.splits", "load_run": "pcamjax.inference.predict",
          "predict": "pcamjax.inference.predict", "Predictions": "pcamjax.inference.predictions",
          "evaluate": "pcamjax.evaluation.metrics", "grad_cam": "pcamjax.explain.cams",
          "heat_maps": "pcamjax.explain.heat_maps"}
__all__ = ["__version__", *_NAMES]


def __getattr__(name: str):
    if name not in _NAMES:
        raise AttributeError(f"module 'pcamjax' has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name]), name)
