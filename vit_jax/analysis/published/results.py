"""Results of the paper (arXiv 2010.11929v2): Tables 2, 5, 6, 7, 8 and 9, and section D.9.

Data sets and models have the names that configs take. JFT-300M (`jft`) and all models that were
pre-trained on it are private. Accuracies are in percent, top-1 unless a line says otherwise, on the
split on which the paper reports, which is `validation` of ImageNet.
"""

from vit_jax.analysis.published.grid import Figure, Grid, figures

_PAPER = "arXiv 2010.11929v2"
# The data sets of Average-5, the vertical axis of Figure 5; Table 7's averages fit these five.
AVERAGE_5 = ("imagenet", "cifar10", "cifar100", "pets", "flowers")
CORE_DAYS, EXAFLOPS = "TPUv3-core-days", "exaFLOPs"
VTAB = "vtab"

# The models of Tables 2 and 9, by what they were pre-trained on.
H14_JFT, L16_JFT, L16_IMAGENET21K = "jft ViT-H/14", "jft ViT-L/16", "imagenet21k ViT-L/16"

TABLE_2 = Grid(
    "top-1 in percent after fine-tuning, and the cost of pre-training",
    f"{_PAPER}, Table 2",
    ("scored on",),
    (H14_JFT, L16_JFT, L16_IMAGENET21K, "jft BiT-R152x4", "Noisy Student"),
    {
        ("imagenet",): figures((88.55, 0.04), (87.76, 0.03), (85.30, 0.02), (87.54, 0.02), 88.4),
        ("imagenet_real",): figures((90.72, 0.05), (90.54, 0.03), (88.62, 0.05), 90.54, 90.55),
        ("cifar10",): figures((99.50, 0.06), (99.42, 0.03), (99.15, 0.03), (99.37, 0.06), None),
        ("cifar100",): figures((94.55, 0.04), (93.90, 0.05), (93.25, 0.05), (93.51, 0.08), None),
        ("pets",): figures((97.56, 0.03), (97.32, 0.11), (94.67, 0.15), (96.62, 0.23), None),
        ("flowers",): figures((99.68, 0.02), (99.74, 0.00), (99.61, 0.02), (99.63, 0.03), None),
        (VTAB,): figures((77.63, 0.23), (76.28, 0.46), (72.72, 0.21), (76.29, 1.70), None),
        (CORE_DAYS,): figures(2500, 680, 230, 9900, 12_300),
    },
    (
        "means and deviations of three fine-tunings; on ImageNet at 512 pixels (H/14: 518) with "
        "averaged weights, otherwise at 384",
        "Noisy Student is EfficientNet-L2; Touvron et al. 2020 have 88.5 on ImageNet with it",
        "JFT-300M and the models that were pre-trained on it are not public",
    ),
)
# Pixels of fine-tuning on ImageNet in Table 2; all else there is fine-tuned at 384.
TABLE_2_IMAGENET_SIZES = {"ViT-H/14": 518, "ViT-L/16": 512}

TABLE_5 = Grid(
    "top-1 in percent after fine-tuning at 384 pixels",
    f"{_PAPER}, Table 5",
    ("pre-trained on", "scored on"),
    ("ViT-B/16", "ViT-B/32", "ViT-L/16", "ViT-L/32", "ViT-H/14"),
    {
        ("imagenet", "cifar10"): figures(98.13, 97.77, 97.86, 97.94, None),
        ("imagenet", "cifar100"): figures(87.13, 86.31, 86.35, 87.07, None),
        ("imagenet", "imagenet"): figures(77.91, 73.38, 76.53, 71.16, None),
        ("imagenet", "imagenet_real"): figures(83.57, 79.56, 82.19, 77.83, None),
        ("imagenet", "flowers"): figures(89.49, 85.43, 89.66, 86.36, None),
        ("imagenet", "pets"): figures(93.81, 92.04, 93.64, 91.35, None),
        ("imagenet21k", "cifar10"): figures(98.95, 98.79, 99.16, 99.13, 99.27),
        ("imagenet21k", "cifar100"): figures(91.67, 91.97, 93.44, 93.04, 93.82),
        ("imagenet21k", "imagenet"): figures(83.97, 81.28, 85.15, 80.99, 85.13),
        ("imagenet21k", "imagenet_real"): figures(88.35, 86.63, 88.40, 85.65, 88.70),
        ("imagenet21k", "flowers"): figures(99.38, 99.11, 99.61, 99.19, 99.51),
        ("imagenet21k", "pets"): figures(94.43, 93.02, 94.73, 93.09, 94.82),
        ("jft", "cifar10"): figures(99.00, 98.61, 99.38, 99.19, 99.50),
        ("jft", "cifar100"): figures(91.87, 90.49, 94.04, 92.52, 94.55),
        ("jft", "imagenet"): figures(84.15, 80.73, 87.12, 84.37, 88.04),
        ("jft", "imagenet_real"): figures(88.85, 86.27, 89.99, 88.28, 90.33),
        ("jft", "flowers"): figures(99.56, 99.27, 99.56, 99.45, 99.68),
        ("jft", "pets"): figures(95.80, 93.40, 97.11, 95.83, 97.56),
    },
)

# A row is a pre-training run on JFT-300M: its model and its epochs.
TABLE_6 = Grid(
    "top-1 in percent after pre-training on JFT-300M and fine-tuning at 384 pixels, and "
    "exaFLOPs of pre-training at 224",
    f"{_PAPER}, Table 6",
    ("model", "epochs"),
    ("imagenet", "imagenet_real", "cifar10", "cifar100", "pets", "flowers", EXAFLOPS),
    {
        ("ViT-B/32", "7"): figures(80.73, 86.27, 98.61, 90.49, 93.40, 99.27, 55),
        ("ViT-B/16", "7"): figures(84.15, 88.85, 99.00, 91.87, 95.80, 99.56, 224),
        ("ViT-L/32", "7"): figures(84.37, 88.28, 99.19, 92.52, 95.83, 99.45, 196),
        ("ViT-L/16", "7"): figures(86.30, 89.43, 99.38, 93.46, 96.81, 99.66, 783),
        ("ViT-L/16", "14"): figures(87.12, 89.99, 99.38, 94.04, 97.11, 99.56, 1567),
        ("ViT-H/14", "14"): figures(88.08, 90.36, 99.50, 94.71, 97.11, 99.71, 4262),
        ("BiT-R50x1", "7"): figures(77.54, 84.56, 97.67, 86.07, 91.11, 94.26, 50),
        ("BiT-R50x2", "7"): figures(82.12, 87.94, 98.29, 89.20, 93.43, 97.02, 199),
        ("BiT-R101x1", "7"): figures(80.67, 87.07, 98.48, 89.17, 94.08, 95.95, 96),
        ("BiT-R152x1", "7"): figures(81.88, 87.96, 98.82, 90.22, 94.17, 96.94, 141),
        ("BiT-R152x2", "7"): figures(84.97, 89.69, 99.06, 92.05, 95.37, 98.62, 563),
        ("BiT-R152x2", "14"): figures(85.56, 89.89, 99.24, 91.92, 95.75, 98.75, 1126),
        ("BiT-R200x3", "14"): figures(87.22, 90.15, 99.34, 93.53, 96.32, 99.04, 3306),
        ("R50+ViT-B/32", "7"): figures(84.90, 89.15, 99.01, 92.24, 95.75, 99.46, 106),
        ("R50+ViT-B/16", "7"): figures(85.58, 89.65, 99.14, 92.63, 96.65, 99.40, 274),
        ("R50+ViT-L/32", "7"): figures(85.68, 89.04, 99.24, 92.93, 96.97, 99.43, 246),
        ("R50+ViT-L/16", "7"): figures(86.60, 89.72, 99.18, 93.64, 97.03, 99.40, 859),
        ("R50+ViT-L/16", "14"): figures(87.12, 89.76, 99.31, 93.89, 97.36, 99.11, 1668),
    },
    ("R50+ViT-L/16: the 859 exaFLOPs of 7 epochs are not half of the 1668 of 14",),
)

# The models of Table 7: ResNets after 7 epochs of JFT-300M. Those with Adam are Table 6's.
TABLE_7_MODELS = ("BiT-R50x1", "BiT-R152x2")
_SGD = {
    "imagenet": (78.24, 84.37),
    "cifar10": (97.46, 99.07),
    "cifar100": (85.17, 91.06),
    "pets": (91.00, 94.79),
    "flowers": (92.06, 99.32),
}


def _table_7_row(dataset: str) -> tuple[Figure | None, ...]:
    adam = (TABLE_6.value((model, "7"), dataset) for model in TABLE_7_MODELS)
    pairs = zip(adam, _SGD[dataset], strict=True)
    return figures(*(value for pair in pairs for value in pair))


TABLE_7 = Grid(
    "top-1 in percent after pre-training ResNets on JFT-300M for 7 epochs by two optimizers",
    f"{_PAPER}, Table 7",
    ("scored on",),
    tuple(f"{model} {name}" for model in TABLE_7_MODELS for name in ("Adam", "SGD")),
    {(dataset,): _table_7_row(dataset) for dataset in AVERAGE_5},
)

# Rows by the form of positions, columns by where they are added.
TABLE_8 = Grid(
    "ViT-B/16: 5-shot linear top-1 on ImageNet, as a share",
    f"{_PAPER}, Table 8",
    ("positions",),
    ("stem", "every layer", "every layer, shared"),
    {
        ("none",): figures(0.61382, None, None),
        ("1-D",): figures(0.64206, 0.63964, 0.64292),
        ("2-D",): figures(0.64001, 0.64046, 0.64022),
        ("relative",): figures(0.64032, None, None),
    },
    ("the pre-training is not stated; by its context 7 epochs of JFT-300M",),
)

# The row and the column by the value of `model.positions`.
TABLE_8_CELLS = {
    "none": ("none", "stem"),
    "learned": ("1-D", "stem"),
    "learned_layers": ("1-D", "every layer"),
    "learned_shared": ("1-D", "every layer, shared"),
    "learned2d": ("2-D", "stem"),
    "learned2d_layers": ("2-D", "every layer"),
    "learned2d_shared": ("2-D", "every layer, shared"),
    "relative": ("relative", "stem"),
}

# The 19 tasks of VTAB-1k by group, in the order of Table 9. A task's data set is `vtab:TASK`.
VTAB_GROUPS = {
    "natural": ("caltech101", "cifar100", "dtd", "flowers", "pets", "sun397", "svhn"),
    "specialized": ("camelyon", "eurosat", "resisc45", "retinopathy"),
    "structured": (
        *("clevr_count", "clevr_distance", "dmlab", "dsprites_location", "dsprites_orientation"),
        *("kitti_distance", "smallnorb_azimuth", "smallnorb_elevation"),
    ),
}
_VTAB = {
    H14_JFT: (
        *(95.3, 85.5, 75.2, 99.7, 97.2, 65.0, 88.9, 83.3, 96.7, 91.4, 76.6),
        *(91.7, 63.8, 53.1, 79.4, 63.3, 84.5, 33.2, 51.2),
    ),
    L16_JFT: (
        *(95.4, 81.9, 74.3, 99.7, 96.7, 63.5, 87.4, 83.6, 96.5, 89.7, 77.1),
        *(86.4, 63.1, 49.7, 74.5, 60.5, 82.2, 36.2, 51.1),
    ),
    L16_IMAGENET21K: (
        *(90.8, 84.1, 74.1, 99.3, 92.7, 61.0, 80.9, 82.5, 95.6, 85.2, 75.3),
        *(70.3, 56.1, 41.9, 74.7, 64.9, 79.9, 30.5, 41.7),
    ),
}
_TASKS = [(group, task) for group, tasks in VTAB_GROUPS.items() for task in tasks]
TABLE_9 = Grid(
    "VTAB-1k: top-1 in percent of each task",
    f"{_PAPER}, Table 9",
    ("group", "task"),
    tuple(_VTAB),
    {
        row: figures(*values)
        for row, values in zip(_TASKS, zip(*_VTAB.values(), strict=True), strict=True)
    },
)

# ViT-H/14 pre-trained on JFT-300M, on the 113 classes of ObjectNet that ImageNet has (section D.9).
OBJECTNET = {"top1": 61.7, "top5": 82.1}

# Top-1 at the end of pre-training, at 224 pixels, from the authors: issue 62 of
# github.com/google-research/vision_transformer. ImageNet-21k is scored on its validation split.
UPSTREAM = Grid(
    "top-1 in percent at the end of pre-training at 224 pixels",
    "github.com/google-research/vision_transformer, issue 62",
    ("pre-trained on",),
    TABLE_5.columns,
    {
        ("imagenet",): figures(74.79, 69.19, 72.59, 66.90, None),
        ("imagenet21k",): figures(47.88, 44.04, 49.90, 45.42, 49.06),
    },
)
