"""Time training steps and inference of our networks beside Keras' and PyTorch's, and what the machine could do."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import launch
from pcamjax.benchmark.material import Case
from pcamjax.benchmark.results import Row, markdown, rows_of, write
from pcamjax.benchmark.session import TOLERANCES, Entrant, Session, environment
from pcamjax.benchmark.subjects import COMPARED, OF_BATCHES, OF_NETWORKS, OURS, SUBJECTS
from pcamjax.data.store import Patches
from pcamjax.errors import InputError
from pcamjax.models import frozen_layers

PRECISIONS = list(TOLERANCES)
TASKS = [*OF_NETWORKS, *OF_BATCHES]
SUBJECT_NAMES = flags.DEFINE_list("subjects", [OURS, "keras_tensorflow", "keras_jax", "torch", "torch_compile"],
                                  f"Who is measured, of {', '.join(SUBJECTS)}.")
TASK_NAMES = flags.DEFINE_list("tasks", TASKS, "What is measured, of these; the last two beside train.")
FROZEN = flags.DEFINE_list("frozen", ["thesis"], "What is frozen, as config.model.frozen.")
BATCH_SIZES = flags.DEFINE_list("batch_sizes", [], "Images a step; by default config.batch_size.")
PRECISION_NAMES = flags.DEFINE_list("precisions", ["float32"], f"What is computed in, of {', '.join(PRECISIONS)}.")
DEVICE_COUNTS = flags.DEFINE_list("device_counts", ["1"], "Devices to spread a batch over; on a CPU so many are faked. "
                                  "Peers take one.")
STEPS_PER_DISPATCH = flags.DEFINE_list("steps_per_dispatch", ["1"], "Our training steps that run as one program, as "
                                       "config.input.steps_per_dispatch. Peers take one.")
STEPS = flags.DEFINE_integer("steps", 3, "Steps in a round, or programs of several.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds, in each of which all have their turn.", lower_bound=1)


def known(flag: flags.FlagHolder, choices: Sequence[str]) -> list[str]:
    """The values of a flag.

    Raises:
      InputError: there are none, or one that is not among the choices.
    """
    for value in flag.value or [""]:
        if value not in choices:
            raise InputError(f"--{flag.name}={','.join(flag.value)}: {value!r} is not known; choose of "
                             f"{', '.join(choices)}")
    return flag.value


def counts(flag: flags.FlagHolder, default: int = 1) -> list[int]:
    """The values of a flag as numbers, the default where it has none.

    Raises:
      InputError: they are not whole numbers of at least 1.
    """
    values = flag.value or [str(default)]
    if not all(value.isdecimal() and int(value) for value in values):
        raise InputError(f"--{flag.name}={','.join(values)}: expected whole numbers of at least 1, as 32,256")
    return [int(value) for value in values]


def groups() -> list[tuple[str, list[Entrant]]]:
    """What the flags ask for: entrants that are measured in turn, a group for each network and task.

    Raises:
      InputError: something that is not possible.
    """
    config = launch.new_config()
    subjects, tasks = known(SUBJECT_NAMES, list(SUBJECTS)), known(TASK_NAMES, TASKS)
    if "train" not in tasks and set(tasks) & set(OF_BATCHES):
        raise InputError(f"--tasks={','.join(tasks)}: {' and '.join(OF_BATCHES)} are measured beside train; add it")
    if not launch.NETWORKS.value or not FROZEN.value:
        raise InputError(f"--networks={','.join(launch.NETWORKS.value)} --frozen={','.join(FROZEN.value)}: expected at "
                         "least one of each")
    precisions = known(PRECISION_NAMES, PRECISIONS)
    batch_sizes, device_counts = counts(BATCH_SIZES, config.batch_size), counts(DEVICE_COUNTS)
    dispatches = counts(STEPS_PER_DISPATCH)
    for batch_size, devices in itertools.product(batch_sizes, device_counts):
        if batch_size % devices:
            raise InputError(f"--batch_sizes: {batch_size} does not divide among {devices} devices; choose a multiple")
    for name, frozen in itertools.product(launch.NETWORKS.value, FROZEN.value):
        frozen_layers(name, frozen)
    if config.data.path and "input" in tasks:
        Patches.open(config.data.path)
    shared = {"seed": config.seed, "augmentation": tuple(sorted(config.augmentation.items()))}
    roofs = [Case("product", precision=precision) for precision in precisions] + [Case("bandwidth")]
    feeding = [Case(task, batch_size=size, data=config.data.path if task == "input" else "", **shared)
               for task, size in itertools.product([task for task in OF_BATCHES if task in tasks], batch_sizes)]
    made = []
    for network, task in itertools.product(launch.NETWORKS.value, [task for task in OF_NETWORKS if task in tasks]):
        cases = [Case(task, network, size, frozen, precision, devices, steps, **shared)
                 for size, frozen, precision, devices, steps in itertools.product(
                     batch_sizes, FROZEN.value, precisions, device_counts, dispatches if task == "train" else [1])]
        cases += feeding if task == "train" else []
        made.append((f"{network} {task}", entrants(cases, subjects) + entrants(roofs, [*subjects, "machine"])))
    return made


def entrants(cases: list[Case], subjects: Sequence[str]) -> list[Entrant]:
    """Each subject at each case that it can do; only ours are spread over devices or take several steps a program."""
    return [Entrant(subject, case) for case, subject in itertools.product(cases, dict.fromkeys(subjects))
            if case.task in SUBJECTS[subject].tasks
            and (case.devices == case.steps_per_dispatch == 1 or subject == OURS and case.task in COMPARED)]


def line(row: Row) -> str:
    """A measurement for the terminal."""
    what = f"  {row['subject']:<21}{row['task']:<10}{row['batch_size']:>4} {row['frozen']:<9}{row['precision']:<9}"
    if row["reason"]:
        return f"{what} not measured: {row['reason']}"
    ratio = f"{row['ratio']:6.2f} ({row['ratio_least']:.2f} to {row['ratio_most']:.2f})" if "ratio" in row else ""
    speed = f"{row['images_per_second']:9.1f} images/s" if "images_per_second" in row else " " * 18
    return (f"{what}{row['devices']:>2}{row['steps_per_dispatch']:>3} {1e3 * row['seconds']:9.2f} ms {speed} "
            f"{row['peak_bytes'] / 2**20:6.0f} MiB {ratio}").rstrip()


def run() -> None:
    asked, rows = groups(), []
    header = {"environment": environment(), "steps": STEPS.value, "rounds": ROUNDS.value}
    if launch.OUTPUT.value:
        write(Path(launch.OUTPUT.value), header, rows)  # a folder that cannot be written costs no measurement
    with Session(alone=header["environment"]["devices"]["platform"] == "tpu") as session:
        for name, group in asked:
            print(name, flush=True)
            rows += rows_of(name, session.measure(group, rounds=ROUNDS.value, times=STEPS.value))
            print("\n".join(line(row) for row in rows if row["group"] == name), flush=True)
            if launch.OUTPUT.value:  # after each group: what is measured stays, whatever comes
                write(Path(launch.OUTPUT.value), header, rows)
    print(f"\n{markdown(rows)}")


if __name__ == "__main__":
    launch.main(run)
