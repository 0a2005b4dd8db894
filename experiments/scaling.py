"""Project the time and memory of full PCam on one, eight and thirty-two H100s; nothing is run on one."""

from experiments import launch
from pcamjax.benchmark.projection import count, markdown
from pcamjax.models import model_spec


def run() -> None:
    for network in launch.NETWORKS.value:
        model_spec(network)  # all names, before a minute goes into the first
    print(markdown([count(network, 256) for network in launch.NETWORKS.value]))


if __name__ == "__main__":
    launch.main(run)
