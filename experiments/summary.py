"""Print a network layer by layer: outputs, parameters, FLOPs, and what is frozen; or all networks in one table."""

from absl import flags

from experiments import launch
from pcamjax.errors import InputError
from pcamjax.models import frozen_layers, model_spec
from pcamjax.models.summary import network_table, summarise

SIZE = flags.DEFINE_integer("size", 0, "Height and width of the images; 0: 96, with --imagenet what the network's "
                            "weights were trained on.", lower_bound=0)
IMAGENET = flags.DEFINE_bool("imagenet", False, "With ImageNet's classifier of 1000 classes instead of the thesis'.")
MARKDOWN = flags.DEFINE_bool("markdown", False, "All networks as the Markdown table of docs/networks.md.")


def run() -> None:
    if MARKDOWN.value:
        print(network_table())
        return
    config = launch.new_config()
    spec, frozen = model_spec(config.model.name), frozen_layers(config.model.name, config.model.frozen)
    if IMAGENET.value and not spec.weights:
        raise InputError(f"--imagenet: {config.model.name} has no classifier of ImageNet's; leave the flag out")
    size = SIZE.value or (spec.native_size if IMAGENET.value else 96)
    if size < spec.minimum_size:
        raise InputError(f"--size={size}: {config.model.name} needs images of at least {spec.minimum_size}")
    if IMAGENET.value and config.model.name == "vgg19" and size != spec.native_size:
        raise InputError(f"--size={size}: VGG19's classifier for ImageNet needs images of {spec.native_size}; leave "
                         "--size or --imagenet out")
    layers = summarise(spec.build(imagenet=True) if IMAGENET.value else spec.build(), size)
    print(f"{'layer':<32}{'kind':<18}{'output':<16}{'parameters':>12}{'MFLOPs':>10}          reads")
    for layer in layers:
        print(f"{layer.name:<32}{layer.kind:<18}{'x'.join(map(str, layer.shape)):<16}"
              f"{layer.parameters + layer.statistics:>12,}{layer.flops / 1e6:>10.2f}  "
              f"{'frozen' if layer.name in frozen else '':<7} {', '.join(layer.reads)}")
    total = sum(layer.parameters + layer.statistics for layer in layers)
    trained = sum(layer.parameters for layer in layers if layer.name not in frozen)
    print(f"{config.model.name}: {len(layers)} layers, {total:,} parameters, {trained:,} of them trained, "
          f"{sum(layer.flops for layer in layers) / 1e9:.3f} GFLOPs for an image of {size}x{size}; "
          f"explained at {spec.cam_layer}")


if __name__ == "__main__":
    launch.main(run)
