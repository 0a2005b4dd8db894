"""A classical model as the thesis compares its networks with: a colour histogram and k-NN, SVM or random forest.

    python -m experiments.baselines --workdir=runs/histogram_knn --config.data.path=data/pcam --config.model.name=knn

The thesis (table 5.3) names three models and a fifth of 187,000 images; colour space, bins and settings are our choice.
Measured on 2 CPU cores, fitted on 16,384 JPEG-compressed PCam patches, AUC on 2,907 others: k-NN 14 s, 0.879; svm 1.7
minutes, 0.914; forest 2 minutes, 0.901. On a network's features the forest is slow: leave 0.2 out of its grid.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # which patches are fitted on where there are more than max_train, and the trees of a forest
    config.model = {"name": "knn"}  # knn, svm or forest
    config.data = default.get_config().data
    config.features = {
        "name": "histogram",  # histogram, or network: the feature map of a trained run, averaged over positions
        "space": "rgb",  # of a histogram: rgb, hsv or stain (haematoxylin, eosin and the rest)
        "bins": (8, 8, 8),  # along the three axes of the space
        "run": "",  # of a network: the folder of its run
        "checkpoint": "last",  # last or best
    }
    config.max_train = 37_400  # patches to fit on at most, a fifth of the thesis' 187,000; 0: all there are
    # Every combination is fitted, and the one with the largest validation AUC kept.
    config.grid = {
        "knn": {"n_neighbors": (5, 15, 45)},
        "svm": {"C": (1.0, 10.0, 100.0), "gamma": ("scale",)},
        "forest": {"n_estimators": (300,), "min_samples_leaf": (1, 4), "max_features": ("sqrt", 0.2)},
    }
    config.carbon = default.get_config().carbon
    return config.lock()  # a key that is not here is a mistake
