"""What the thesis published, by model: the only place for these values, and never mixed with what is measured here.

J. Abad, 2020, tables 3.1, 4.1, 4.2, 5.2 and 5.3. The networks: the Kaggle copy of PatchCamelyon, 187,000 patches to
train and validate and 33,025 to test, drawn at random so that slides lie on both sides, one Tesla P100. The classical
models: a fifth of the patches, another test set, a CPU.
"""

from typing import Literal, NamedTuple

Family = Literal["scratch", "fine-tuned", "histogram", "features"]


class Published(NamedTuple):
    """A model's published values, None where there is none.

    Attributes:
      metrics: accuracy, precision, recall, F1, specificity, AUC; in per cent, AUC too.
      parameters: all, and those that are trained.
      layers: frozen ones and all, of the backbone.
      hours: of training.
      milliseconds: an image of the training set in the whole training, an image of the test set.
    """

    title: str
    family: Family
    metrics: tuple[float | None, ...] = (None,) * 6
    parameters: tuple[int | None, int | None] = (None, None)
    layers: tuple[int | None, int | None] = (None, None)
    optimizer: str | None = None
    hours: float | None = None
    milliseconds: tuple[float | None, float | None] = (None, None)


CLASSIFIERS = {"knn": "k-NN", "svm": "SVM", "forest": "random forest"}
METRICS = ("accuracy", "precision", "recall", "f1", "specificity", "auc")
_DECAY, _NESTEROV = "SGD, decay, momentum", "SGD, momentum, Nesterov"

# The optimizers of the networks from scratch are in its text, not in a table.
PUBLISHED: dict[str, Published] = {
    "scratch1": Published("scratch #1", "scratch", (89.97, 84.68, 91.83, 88.11, 88.71, 96.40), (4_549_538, 4_548_642),
                          optimizer=_NESTEROV, hours=7.46),
    "scratch2": Published("scratch #2", "scratch", (93.95, 95.29, 89.48, 92.29, 96.99, 98.30),
                          (34_403_106, 34_362_786), optimizer="Adam", hours=6.94),
    "scratch3": Published("scratch #3", "scratch", (94.39, 91.85, 94.51, 93.16, 94.30, 98.60),
                          (35_172_066, 35_129_826), optimizer="Adam", hours=18.43, milliseconds=(354.80, 2.57)),
    "vgg19": Published("VGG19", "fine-tuned", (95.75, 98.00, 91.37, 94.57, 98.73, 99.10), (25_269_826, 25_009_666),
                       (6, 21), _DECAY, 6.54, (119.52, 0.73)),
    "inception_v3": Published("InceptionV3", "fine-tuned", (93.29, 91.69, 91.73, 91.71, 94.35, 98.00),
                              (24_426_786, 18_839_938), (171, 310), _NESTEROV, 6.28),
    "resnet50": Published("ResNet50", "fine-tuned", (92.17, 97.02, 83.21, 89.59, 98.27, 97.10),
                          (26_211_714, 22_074_882), (102, 174), "Adamax", 7.78),
    "xception": Published("Xception", "fine-tuned", (94.06, 96.28, 88.76, 92.37, 97.67, 98.50),
                          (23_485_482, 15_868_290), (75, 131), "Nadam", 6.67, (128.41, 0.58)),
    "densenet201": Published("DenseNet201", "fine-tuned", (94.19, 94.38, 91.07, 92.70, 96.31, 98.60),
                             (20_814_914, 9_475_330), (480, 706), _DECAY, 7.13, (137.26, 1.15)),
    "mobilenet": Published("MobileNet", "fine-tuned", (94.58, 96.04, 90.34, 93.10, 97.47, 98.60),
                           (4_804_290, 4_513_282), (43, 86), "Adam", 6.55, (126.10, 0.58)),
    "histogram knn": Published("colour histogram + k-NN", "histogram", (89.86, *(None,) * 5),
                               milliseconds=(1.65, 5.87)),
    "histogram svm": Published("colour histogram + SVM", "histogram", (89.73, *(None,) * 5),
                               milliseconds=(460.13, 10.96)),
    "histogram forest": Published("colour histogram + random forest", "histogram", (89.29, *(None,) * 5),
                                  milliseconds=(2.07, 0.04)),
    # Its future work: named there, without values.
    **{f"features {name}": Published(f"network features + {title}", "features")
       for name, title in CLASSIFIERS.items()},
}
