"""What all jobs share: flags in, one clear line and exit code 2 for bad input, 75 for work that a signal ended."""

import contextlib
import dataclasses
import difflib
import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from pcamjax import hosts
from pcamjax.data.splits import Split, make_split
from pcamjax.data.store import Patches
from pcamjax.errors import InputError, one_line
from pcamjax.host_memory import keep_freed_memory
from pcamjax.inference.predict import Run, load_run
from pcamjax.inference.recalibration import recalibrate
from pcamjax.ops.compiled import cache_folder, processor
from pcamjax.stopping import SIGNALS, Stopped
from pcamjax.training.run import RunFolder, data_identity, flatten

STOPPED = os.EX_TEMPFAIL
"""The exit code, 75, after SIGTERM or SIGINT: no failure, the same command goes on or does the work again."""

NINE = ["scratch1", "scratch2", "scratch3", "vgg19", "inception_v3", "resnet50", "xception", "densenet201", "mobilenet"]
WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of a run to use.")
OUTPUT = flags.DEFINE_string("output", None, "prepare: the store to write, which must not exist; predict: the CSV, by "
                             "default predictions/<split>.csv in the run; export: the HDF5 file; benchmark: the folder "
                             "for what is measured; compare: that of the page, tables and figures.")
RECALIBRATE = flags.DEFINE_integer("recalibrate", 0, "Measure BatchNorm's statistics anew on this many training "
                                   "patches, a multiple of 128, before the run is used; 0: as trained.")
SYMMETRIES = flags.DEFINE_bool("symmetries", False, "evaluate, predict: average over the eight symmetries of a "
                               "patch, at eight times the work.")
SPLIT = flags.DEFINE_enum("split", "test", ["train", "valid", "test"], "The part of the run's split to work on.")
VERIFY = flags.DEFINE_bool("verify", False, "Read the whole store first and compare it with its hashes.")
NETWORKS = flags.DEFINE_list("networks", NINE, "benchmark, reproduce, scaling: the networks.")
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "train, evaluate, predict in several processes: "
                                  "host:port of the first. Slurm, Kubernetes and Cloud TPUs tell all three.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are; 1: this one alone, whatever "
                                     "a scheduler says.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0)
CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment; --config.key=value overrides one of its "
                                         "values.")


def main(run: Callable[..., None], config: str = "configs/default.py", *, several: bool = False) -> None:
    """Parses the flags and calls `run`; an InputError becomes one line on stderr and exit code 2, the work's end by a
    signal one line and exit code `STOPPED`.

    `config` is the experiment where --config names none. A `run` with a parameter is given the arguments that are no
    flags; with one that has none such an argument is an error. A job that can run in `several` processes joins the
    others.
    """
    takes_arguments = bool(inspect.signature(run).parameters)
    keep_freed_memory()
    keep_compiled_programs()
    logging.set_verbosity(logging.FATAL)  # Orbax and grain narrate; their errors come as exceptions too.

    def parse(arguments: list[str]) -> list[str]:
        try:
            named = _named_config()
            _require_keys(named or config, arguments)
            default = [] if named else [f"--config={config}"]
            remaining = flags.FLAGS([arguments[0], *default, *arguments[1:]])
        except InputError as error:
            _refuse(one_line(error))
        except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError) as error:
            _refuse(f"{one_line(error)}; see --help and configs/default.py for the flags and keys there are")
        if len(remaining) > 1 and not takes_arguments:
            _refuse(f"argument {remaining[1]!r} is not a flag; write --name=value")
        return remaining

    def guarded(arguments: list[str]) -> None:
        came: list[int] = []
        try:
            with _signals(came):
                _join(several)
                run(arguments[1:]) if takes_arguments else run()
                hosts.part()
        except (KeyboardInterrupt, Exception) as error:
            # A library may make any error of an interruption.
            if came or isinstance(error, KeyboardInterrupt):
                said = str(error) if isinstance(error, Stopped) else "a signal came; nothing is left half-written, " \
                    "start the same command again"
                print(f"stopped: {said}", file=sys.stderr)
                if isinstance(error, Stopped):  # all processes have stopped at one step
                    hosts.part()
                hosts.leave(STOPPED)
            if isinstance(error, InputError):
                _refuse(one_line(error))
            hosts.leave_by(error)
            raise

    app.run(guarded, flags_parser=parse)


@contextlib.contextmanager
def _signals(came: list[int]) -> Iterator[None]:
    """SIGTERM and SIGINT interrupt, which `came` notes; a second one ends the process at once, whatever it is busy
    with."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:  # in a thread: the main one hears of a signal only between two calls of C, which may be long
        count = 0
        while number := os.read(reader, 1):
            count += number[0] in SIGNALS
            if count == 2:
                os._exit(128 + number[0])
        os.close(reader)

    def interrupt(number: int, _: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, interrupt) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)


def keep_compiled_programs() -> None:
    """Makes JAX keep what takes it long to compile, for the next start of a job on such a processor.

    They go to $XDG_CACHE_HOME/pcamjax/programs, or where JAX_COMPILATION_CACHE_DIR says;
    JAX_ENABLE_COMPILATION_CACHE=false keeps none.
    """
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs" / processor()))


def new_config() -> ConfigDict:
    """The configuration from --config and its overrides."""
    return CONFIG.value


def workdir() -> RunFolder:
    """The folder from --workdir.

    Raises:
      InputError: the flag is missing.
    """
    if not WORKDIR.value:
        raise InputError("--workdir is missing; name the folder of the run: --workdir=runs/<name>")
    return RunFolder(WORKDIR.value)


def open_split(config: ConfigDict) -> tuple[Patches, Split]:
    """The store that the configuration names and its split; prints what the split is.

    Raises:
      InputError: no store is named, it is not whole or, by --verify, not as written, or the split is not possible.
    """
    if not config.data.path:
        raise InputError("config.data.path is empty; name a store made by experiments.prepare: --config.data.path=...")
    patches = Patches.open(config.data.path)
    if VERIFY.value:
        patches.verify()
    split = make_split(patches, **config.data.split)
    print(f"split {split.name}: {split.description}")
    return patches, split


def existing_network() -> Run:
    """The run in --workdir, by --checkpoint and as trained, with what --config says about where it works.

    Raises:
      InputError: there is no run, or --config names another network than the run's.
    """
    folder = workdir()
    config, asked = folder.config(), new_config()
    if "features" in config:
        raise InputError(f"{folder.path}: holds a baseline, which has no network; python -m experiments.baselines "
                         "evaluates it")
    overrides = config_flags.get_override_values(flags.FLAGS["config"])
    if (_named_config() or "model.name" in overrides) and asked.model.name != config.model.name:
        raise InputError(f"{folder.path}: holds a checkpoint of {config.model.name!r}, asked for is "
                         f"{asked.model.name!r}; choose the run's own configuration or leave --config out")
    config.update_from_flattened_dict({key: value for key, value in overrides.items()
                                       if key.startswith(("carbon.", "data.", "eval_batch_size", "parallel."))})
    return load_run(folder.path, CHECKPOINT.value, config)


def existing_run() -> tuple[Run, Patches, Split]:
    """The run in --workdir, by --checkpoint and --recalibrate, and its data, where --config.data says they have moved.

    Raises:
      InputError: there is no run, --config names another network than the run's, or as `open_split`.
    """
    run = existing_network()
    patches, split = open_split(run.config)
    if run.folder.data() is None or data_identity(patches, split) != run.folder.data():
        split = dataclasses.replace(split, leaks_slides=None, description=(
            f"{split.description}; not known to be the store and split of the training, so they may share slides"))
        print(split.description)
    if RECALIBRATE.value:
        run = recalibrate(run, patches.images, split.part("train"), RECALIBRATE.value)
    return run, patches, split


def _join(several: bool) -> None:
    """Makes this process one of several, if flags or a scheduler say so and the job can.

    Raises:
      InputError: flags ask it of a job that cannot, or as `hosts.join`.
    """
    asked = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    if several:
        hosts.join(*asked)
    elif asked not in ((None, None, None), (None, 1, None)):
        raise InputError(f"--num_processes={NUM_PROCESSES.value}: only train, evaluate and predict run in several "
                         "processes; leave the flags out and start this job once")


def _named_config() -> str | None:
    """What --config names on the command line, None where it is left out."""
    for argument, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        flag, equals, value = argument.partition("=")
        if flag in ("--config", "-config"):
            return value if equals else following
    return None


def _require_keys(file: str, arguments: list[str]) -> None:
    """Raises InputError if there is no such configuration, or not all keys of the arguments --config.key=value."""
    if not Path(file).is_file():
        raise InputError(f"--config={file}: no such file; choose one of configs/*.py")
    try:
        known = flatten(flags.FLAGS["config"].parser.parse(file).to_dict())
    except Exception as error:  # It is a program: anything can go wrong in it.
        cause = error.__context__ or error
        raise InputError(f"--config={file}: {type(cause).__name__}: {cause}; mend the file, get_config() must return a "
                         "ConfigDict") from error
    for argument in arguments:
        given = re.match(r"--?(?:no)?config\.([^=\[]+)", argument)
        if given and not any(f"{key}.".startswith(f"{given[1]}.") for key in known):
            closest = difflib.get_close_matches(given[1], known, cutoff=0.5)
            raise InputError(f"--config.{given[1]}: {file} has no such key; " + (
                f"the closest are {', '.join(closest)}" if closest else f"its keys are {', '.join(known)}"))


def _refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    hosts.leave(2)
