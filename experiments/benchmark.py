"""Time a training step and inference of our networks beside Keras' and PyTorch's."""

import itertools

from absl import flags

from experiments import launch
from pcamjax.benchmark.comparison import Measurement, compare
from pcamjax.benchmark.material import Case
from pcamjax.benchmark.subjects import SUBJECTS
from pcamjax.errors import InputError
from pcamjax.models import MODELS, frozen_layers

NETWORKS = flags.DEFINE_list("networks", list(MODELS)[:9], "The networks to measure.")
SUBJECTS_ = flags.DEFINE_list("subjects", ["pcamjax", "keras_tensorflow", "torch", "torch_compile"],
                              f"Who is measured, of {', '.join(SUBJECTS)}.")
TASKS = flags.DEFINE_list("tasks", ["train", "infer"], "train, infer.")
FROZEN = flags.DEFINE_list("frozen", ["thesis"], "What is frozen, as config.model.frozen.")
STEPS = flags.DEFINE_integer("steps", 3, "Steps in a round.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds, in each of which every subject has its turn.", lower_bound=1)


def line(made: Measurement, ours: Measurement | None) -> str:
    if made.reason:
        return f"  {made.subject:<22}not measured: {made.reason}"
    ratio = spread = ""
    if ours is not None and not ours.reason and made is not ours:
        ratios = [min(a) / min(b) for a, b in zip(made.rounds, ours.rounds, strict=True)]
        ratio, spread = f"{made.seconds / ours.seconds:.2f}", f"({min(ratios):.2f}-{max(ratios):.2f})"
    return (f"  {made.subject:<22}{made.seconds:>9.4f} s{ratio:>7} {spread:<13} first {made.first_seconds:6.1f} s  "
            f"peak {made.peak_bytes / 2**20:6.0f} MiB")


def run() -> None:
    config = launch.new_config()
    if unknown := set(SUBJECTS_.value) - SUBJECTS.keys():
        raise InputError(f"--subjects: {min(unknown)!r} is not known; choose of {', '.join(SUBJECTS)}")
    if unknown := set(TASKS.value) - {"train", "infer"}:
        raise InputError(f"--tasks: {min(unknown)!r} is not known; choose train, infer")
    if not NETWORKS.value or not FROZEN.value or config.batch_size < 1:
        raise InputError(f"--networks={','.join(NETWORKS.value)} --frozen={','.join(FROZEN.value)} "
                         f"--config.batch_size={config.batch_size}: expected at least one of each")
    for name, frozen in itertools.product(NETWORKS.value, FROZEN.value):
        frozen_layers(name, frozen)  # so that a wrong name costs no measurement
    for name, frozen, task in itertools.product(NETWORKS.value, FROZEN.value, TASKS.value):
        case = Case(name, task, config.batch_size, frozen, config.seed)
        measured = compare(case, SUBJECTS_.value, rounds=ROUNDS.value, times=STEPS.value)
        ours = next((made for made in measured if made.subject == "pcamjax"), None)
        print(f"{name} {task} (frozen {frozen}, batch {case.batch_size})", flush=True)
        for made in measured:
            print(line(made, ours), flush=True)
        peers = [made.seconds for made in measured if not made.reason and made is not ours]
        if ours is not None and not ours.reason and peers:
            print(f"  fastest peer : pcamjax = {min(peers) / ours.seconds:.2f}", flush=True)


if __name__ == "__main__":
    launch.main(run)
