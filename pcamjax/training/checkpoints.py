"""Checkpoints of a run by Orbax: `last`, to go on from, and `best`, chosen by the validation metric."""

import os
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from pcamjax.data.store import require_space
from pcamjax.errors import InputError
from pcamjax.files import read_json, sha256_file, write_json
from pcamjax.training.step import TrainState

Kind = Literal["last", "best"]
HASHES = "sha256.json"


class Checkpoints:
    """The two series of checkpoints in a folder; a checkpoint is there only once it is whole.

    Each holds `variables` (what the network needs), `training` (optimizer state, step and random key) and `progress`
    (JSON: the epochs so far and the sums of the epoch under way). Orbax meets damage with pages of threads' tracebacks,
    so the hashes of its files lie beside them and are compared before it reads.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder).absolute()
        self._managers: dict[str, ocp.CheckpointManager] = {}

    def save(self, kind: Kind, state: TrainState, progress: dict[str, Any]) -> None:
        """Writes a checkpoint of `state.step` and waits until it is on disk; the one before goes afterwards.

        Raises:
          InputError: it cannot be written, for want of space for instance; the checkpoint before is untouched.
        """
        step = int(state.step)
        manager = self._manager(kind)
        if step in manager.all_steps():
            return
        training = {"step": state.step, "opt_state": state.opt_state, "key": state.key}
        require_space(self.folder / kind, sum(x.nbytes for x in jax.tree.leaves(state)))
        try:
            saved = manager.save(step, args=ocp.args.Composite(variables=ocp.args.StandardSave(state.variables),
                                                               training=ocp.args.StandardSave(training),
                                                               progress=ocp.args.JsonSave(progress)))
            if not saved:
                raise OSError(f"there is one of the later step {manager.latest_step()}")
            manager.wait_until_finished()
            folder = self.folder / kind / str(step)
            write_json(folder / HASHES, _hashes(folder))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.folder / kind}: checkpoint of step {step} cannot be written "
                             f"({_first_line(error)}); free space and start the same command again, it goes on from "
                             "the one before") from error

    def latest_step(self, kind: Kind) -> int | None:
        """The step of the newest checkpoint, None if there is none."""
        return self._manager(kind).latest_step() if (self.folder / kind).is_dir() else None

    def restore(self, kind: Kind, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint as (state, progress), on the devices and of the shapes of `like`.

        Raises:
          InputError: there is none, it is damaged, or it is of another network or optimizer.
        """
        training = {"step": like.step, "opt_state": like.opt_state, "key": like.key}
        restored = self._restore(kind, variables=ocp.args.StandardRestore(_abstract(like.variables)),
                                 training=ocp.args.StandardRestore(_abstract(training)),
                                 progress=ocp.args.JsonRestore())
        return TrainState(**restored.variables, **restored.training), restored.progress

    def restore_variables(self, kind: Kind, like: dict[str, PyTree]) -> dict[str, PyTree]:
        """The network's variables alone from the newest checkpoint, as `restore`."""
        return self._restore(kind, variables=ocp.args.StandardRestore(_abstract(like))).variables

    def variables_bytes(self, kind: Kind) -> int:
        """The size on disk of the newest checkpoint's variables: all of a run that predictions need."""
        folder = self.folder / kind / str(self.latest_step(kind)) / "variables"
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    def close(self) -> None:
        """Waits for what Orbax does in the background."""
        for manager in self._managers.values():
            manager.close()

    def _restore(self, kind: Kind, **items: Any) -> Any:
        step = self.latest_step(kind)
        if step is None:
            raise InputError(f"{self.folder / kind}: no checkpoint; train first: python -m experiments.train")
        _verify(self.folder / kind / str(step))
        try:
            _require_shapes(self.folder / kind / str(step) / "variables", items["variables"].item)
            return self._manager(kind).restore(step, args=ocp.args.Composite(**items))
        except InputError:
            raise
        except Exception as error:  # Orbax has no class of its own for what it cannot read.
            raise InputError(f"{self.folder / kind / str(step)}: not a whole checkpoint of this network and optimizer "
                             f"({_first_line(error)}); use the configuration it was written with") from error

    def _manager(self, kind: Kind) -> ocp.CheckpointManager:
        if kind not in self._managers:
            keep = ocp.checkpoint_managers.LatestN(1)
            self._managers[kind] = ocp.CheckpointManager(
                self.folder / kind, options=ocp.CheckpointManagerOptions(preservation_policy=keep))
        return self._managers[kind]


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != HASHES)
    return {str(file.relative_to(folder)): sha256_file(file) for file in files}


def _verify(folder: Path) -> None:
    """Raises InputError if a file of a checkpoint is not as it was written; one killed before its hashes passes."""
    if not (folder / HASHES).exists():
        return
    found = _hashes(folder)
    for name, written in read_json(folder / HASHES).items():
        if found.get(name) != written:
            raise InputError(f"{folder / name}: {'damaged' if name in found else 'missing'}, the checkpoint is not as "
                             "it was written; restore it, use the other --checkpoint, or train in a new workdir")


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
