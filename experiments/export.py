"""Write a trained network as an HDF5 file that Keras loads."""

from experiments import launch
from pcamjax.errors import InputError
from pcamjax.weights import export_keras


def run() -> None:
    if not launch.OUTPUT.value:
        raise InputError("--output is missing; name the file to write: --output=network.h5")
    trained = launch.existing_run()[0] if launch.RECALIBRATE.value else launch.existing_network()
    export_keras(launch.OUTPUT.value, trained.config.model.name, trained.variables)
    print(f"{trained.config.model.name}, {trained.checkpoint}: {launch.OUTPUT.value}")


if __name__ == "__main__":
    launch.main(run)
