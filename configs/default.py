"""What all experiments share; the other files override it. On its own: scratch #1 with the thesis' settings."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # weights, shuffling, dropout and augmentation
    config.model = {
        "name": "scratch1",
        "batch_norm_momentum": 0.99,  # Keras' momentum; lower for very short runs
        "weights": "",  # to begin from: "" draws them, "imagenet" is downloaded, or the path of a Keras file
        "precision": "float32",  # of what the layers compute: float32 or bfloat16; parameters and logits are float32
        "remat": False,  # keep of a forward pass only what convolutions put out, compute the rest again: less memory
        "frozen": "none",  # layers not trained: none, thesis (its boundary), backbone, or the last ones, by name
    }
    config.data = {
        "path": "",  # a store made by experiments.prepare
        "split": {
            "name": "official",  # official, by_slide, random_slides_leak or file
            "seed": 0,
            "folds": 0,  # by_slide: 0 is one split of 70 / 15 / 15 %, K >= 3 are K folds
            "fold": 1,  # which of the folds is the test set, from 1
            "file": "",  # file: a CSV with the columns id and split
        },
    }
    # The thesis names rotation, zoom, flips and crops; their ranges are our choice.
    config.augmentation = {
        "symmetries": False,  # the eight exact symmetries of the square
        "flips": True,
        "rotation": 90.0,  # degrees either way
        "zoom": 0.2,  # scale 1 - zoom to 1 + zoom
        "shift": 4.0,  # pixels either way; the borders are reflected
        "stain": 0.0,  # fraction by which the amounts of haematoxylin and eosin vary; the thesis has none
    }
    config.batch_size = 32
    config.eval_batch_size = 256  # a CPU device takes it 64 at a time
    config.epochs = 50
    # Before them, epochs that train the classifier alone; the optimizer of the others then begins afresh.
    config.head = {"epochs": 0, "optimizer": {"name": "adam", "clip_norm": 0.0,
                                              "schedule": {"name": "constant", "learning_rate": 1e-3}}}
    config.loss = {"name": "binary_crossentropy", "class_weights": (1.0, 1.0)}  # weights of healthy, metastasis
    config.optimizer = {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "clip_norm": 0.0,  # 0: gradients are not clipped
        "schedule": {"name": "constant", "learning_rate": 1e-3},
    }
    config.best_metric = "valid_auc"  # which epoch is kept as checkpoints/best
    config.early_stopping = 0  # epochs without a better best_metric after which to stop; 0: never
    config.checkpoint_every = 500  # steps; every epoch ends with one anyway
    config.input = {
        "where": "auto",  # the images lie on the host, on the device, or there if its own memory has room: auto
        "steps_per_dispatch": 1,  # steps that run as one program; leave 1 on a CPU
    }
    config.parallel = {"devices": 0, "wrapper": "shard_map"}  # 0: all devices; wrapper shard_map or pmap
    config.carbon = {"country": ""}  # ISO code, as FRA: its electricity makes CO2 of measured energy; "": not measured
    return config.lock()  # a key that is not here is a mistake
