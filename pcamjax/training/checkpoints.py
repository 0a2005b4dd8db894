"""Checkpoints of a run by Orbax: `last`, to go on from, and `best`, chosen by the validation metric."""

import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from pcamjax.errors import InputError, first_line
from pcamjax.files import read_json, require_space, sha256_file, sync, write_json
from pcamjax.hosts import is_first, several
from pcamjax.training.step import TrainState

Kind = Literal["last", "best"]
KEPT = {"last": 2, "best": 1}
HASHES = "sha256.json"


class Checkpoints:
    """The two series of checkpoints in a folder; one has its name, the number of its step, only once it is whole.

    Each holds `variables` (what the network needs), `training` (optimizer state, step and random key), `progress`
    (JSON: the epochs so far and the sums of the epoch under way) and the hashes of all these files, which are compared
    before Orbax reads: it meets damage with pages of threads' tracebacks. A `last` that is not as it was written is
    passed over for the one before. Another `best` would not be the best, so one is kept. While one more is written
    there are four at most.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder).absolute()
        # Of several processes each reads alone and one writes, without Orbax' barriers, at which all had to meet.
        own = jax.process_index()
        alone = {"multiprocessing_options": ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}")} if several() else {}
        self._orbax = ocp.Checkpointer(ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(**alone)), **alone)
        # The steps that this process has written or compared with their hashes; when it saves, only these stay.
        self._whole: dict[Kind, list[int]] = {kind: [] for kind in KEPT}

    def save(self, kind: Kind, state: TrainState, progress: dict[str, Any]) -> None:
        """Writes a checkpoint of `state.step` and waits until it is on disk; only then those go that it replaces.

        Of several processes the first one writes it alone: all have the same state.

        Raises:
          InputError: it cannot be written, for want of space for instance; the checkpoints before are untouched.
        """
        if not is_first():
            return
        if several():
            state = jax.device_get(state)  # Orbax would have all processes write a piece of it
        step, folder = int(state.step), self.folder / kind
        training = {"step": state.step, "opt_state": state.opt_state, "key": state.key}
        items = ocp.args.Composite(variables=ocp.args.StandardSave(state.variables),
                                   training=ocp.args.StandardSave(training), progress=ocp.args.JsonSave(progress))
        temporary = folder / f".{step}.{secrets.token_hex(4)}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._clear()
            require_space(folder, sum(x.nbytes for x in jax.tree.leaves(state)))
            self._orbax.save(temporary, args=items)
            write_json(temporary / HASHES, _hashes(temporary))
            for file in (*temporary.rglob("*"), temporary):
                sync(file)
            # Of the same or a later step are only damaged ones, and those of a future that did not come.
            self._remove(kind, [other for other in self._steps(kind) if other >= step])
            temporary.rename(folder / str(step))
            sync(folder)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"{folder}: checkpoint of step {step} cannot be written ({first_line(error)}); free "
                             "space and start the same command again, it goes on from the one before") from error
        finally:
            self._clear()
        self._whole[kind] = [*(other for other in self._whole[kind] if other < step), step][-KEPT[kind]:]
        self._remove(kind, [other for other in self._steps(kind) if other not in self._whole[kind]])

    def latest_step(self, kind: Kind) -> int | None:
        """The step of the newest whole checkpoint, None if there are none; damaged ones are named on stderr.

        Raises:
          InputError: all there are, are damaged.
        """
        if not self._whole[kind] and (steps := self._steps(kind)):
            damages = []
            for step in steps:
                if damage := _damage(self.folder / kind / str(step)):
                    damages.append(damage)
                else:
                    self._whole[kind] = [step]
                    break
            if not self._whole[kind]:
                raise InputError(f"{damages[0]}, the checkpoint is not as it was written, nor is any before it; "
                                 "restore it, use the other --checkpoint, or train in a new workdir")
            for damage in damages:
                print(f"warning: {damage}, the checkpoint is not as it was written; passed over for that of step "
                      f"{step}", file=sys.stderr)
        return max(self._whole[kind], default=None)

    def restore(self, kind: Kind, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The checkpoint of `latest_step` as (state, progress), on the devices and of the shapes of `like`.

        Raises:
          InputError: there is none, all are damaged, or it is of another network or optimizer.
        """
        training = {"step": like.step, "opt_state": like.opt_state, "key": like.key}
        restored = self._restore(kind, variables=ocp.args.StandardRestore(_abstract(like.variables)),
                                 training=ocp.args.StandardRestore(_abstract(training)),
                                 progress=ocp.args.JsonRestore())
        return TrainState(**restored.variables, **restored.training), restored.progress

    def restore_variables(self, kind: Kind, like: dict[str, PyTree]) -> dict[str, PyTree]:
        """The network's variables alone from the same checkpoint, as `restore`."""
        return self._restore(kind, variables=ocp.args.StandardRestore(_abstract(like))).variables

    def variables_bytes(self, kind: Kind) -> int:
        """The size on disk of the newest checkpoint's variables: all of a run that predictions need."""
        folder = self.folder / kind / str(self.latest_step(kind)) / "variables"
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    def close(self) -> None:
        """Ends Orbax' threads."""
        self._orbax.close()

    def _restore(self, kind: Kind, **items: Any) -> Any:
        step = self.latest_step(kind)
        if step is None:
            raise InputError(f"{self.folder / kind}: no checkpoint; train first: python -m experiments.train")
        folder = self.folder / kind / str(step)
        try:
            _require_shapes(folder / "variables", items["variables"].item)
            return self._orbax.restore(folder, args=ocp.args.Composite(**items))
        except InputError:
            raise
        except Exception as error:  # Orbax has no class of its own for what it cannot read.
            raise InputError(f"{folder}: not a whole checkpoint of this network and optimizer ({first_line(error)}); "
                             "use the configuration and the version of pcamjax it was written with") from error

    def _steps(self, kind: Kind) -> list[int]:
        """The steps of the checkpoints that are there, whole or not, the newest first."""
        return sorted((int(path.name) for path in self._files(kind) if path.name.isdecimal()), reverse=True)

    def _files(self, kind: Kind) -> list[Path]:
        return list((self.folder / kind).iterdir()) if (self.folder / kind).is_dir() else []

    def _remove(self, kind: Kind, steps: list[int]) -> None:
        """Removes checkpoints; they lose their names first, so that half of one is never taken for one."""
        for step in steps:
            nameless = (self.folder / kind / str(step)).rename(self.folder / kind / f".{step}.{secrets.token_hex(4)}")
            shutil.rmtree(nameless, ignore_errors=True)

    def _clear(self) -> None:
        """Removes what has no name of its own yet or any more; a killed process leaves such."""
        for path in (path for kind in KEPT for path in self._files(kind)):
            if path.name.startswith(".") or ".orbax-checkpoint-tmp" in path.name:
                shutil.rmtree(path, ignore_errors=True)


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != HASHES)
    return {str(file.relative_to(folder)): sha256_file(file) for file in files}


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, None if they are as they were written."""
    file = folder / HASHES
    if not file.exists():
        return f"{file}: missing"
    try:
        written = read_json(file)
    except InputError:
        written = None
    if not isinstance(written, dict):
        return f"{file}: damaged"
    try:
        found = _hashes(folder)
    except OSError as error:
        return f"{error.filename or folder}: not readable ({error.strerror})"
    wrong = (name for name in written if found.get(name) != written[name])
    return next((f"{folder / name}: {'damaged' if name in found else 'missing'}" for name in wrong), None)


def _require_shapes(folder: Path, like: PyTree) -> None:
    """Raises InputError, before Orbax' threads fail one by one, unless the arrays in `folder` are shaped as `like`."""
    found, wanted = ({jax.tree_util.keystr(path, simple=True, separator="."): tuple(x.shape)
                      for path, x in jax.tree.leaves_with_path(tree)}
                     for tree in (ocp.StandardCheckpointHandler().metadata(folder).tree, like))
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(f"{folder}: a checkpoint of another network, {name} is {found.get(name)} there and "
                             f"{wanted.get(name)} in this one; use the configuration it was written with")


def _abstract(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
