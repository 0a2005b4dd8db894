"""Make synthetic patches, train scratch #1 on them, evaluate, explain and report: the whole way in minutes."""

from experiments import launch
from experiments.evaluate import evaluate_run
from experiments.explain import explain_run
from pcamjax.data.sources.synthetic import open_synthetic
from pcamjax.data.store import write_store
from pcamjax.inference.predict import load_run
from pcamjax.report.page import write_report
from pcamjax.report.tables import metric_table
from pcamjax.training.loop import fit


def run() -> None:
    config, folder = launch.new_config(), launch.workdir()
    store = folder.path.with_name(f"{folder.path.name}_patches")
    config.data.path = str(store)
    if not store.exists():
        write_store(open_synthetic(config.synthetic.to_dict(), config.seed), store)
    patches, split = launch.open_split(config)
    fit(config, patches, split, folder)
    trained = load_run(folder.path)
    with folder.lock("results"):
        metrics = evaluate_run(trained, patches, split, "test")
        explain_run(trained, patches, split, "test", 16)
    print(metric_table({"test": metrics}))
    print(f"report: {write_report(folder.path)}")


if __name__ == "__main__":
    launch.main(run, config="configs/demo.py")
