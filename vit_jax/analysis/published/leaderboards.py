"""Rows of the paper's models on public leaderboards.

They stood on paperswithcode.com, which is gone; an archive of its rows and the mirror at
beta.hyper.ai/en/papers/2010.11929 have them. What the paper reports too is read from its tables.
"""

from vit_jax.analysis.published.grid import Figure, Grid
from vit_jax.analysis.published.results import H14_JFT, L16_JFT, OBJECTNET, TABLE_2

# VizWiz-Classification has names of its own for its models.
VIZWIZ_ALL = ("vizwiz, all images", "top-1", "ViT-L/16 at 224")
VIZWIZ_CLEAN = ("vizwiz, clean images", "top-1", "ViT-B/8 at 224")

LEADERBOARDS = Grid(
    "rows on leaderboards, in percent",
    "paperswithcode.com (archived) and beta.hyper.ai/en/papers/2010.11929",
    ("scored on", "metric", "model"),
    ("published",),
    {
        ("imagenet", "top-1", "ViT-H/14"): (TABLE_2.figure(("imagenet",), H14_JFT),),
        ("imagenet", "top-1", "ViT-L/16"): (TABLE_2.figure(("imagenet",), L16_JFT),),
        ("cifar10", "top-1", "ViT-H/14"): (TABLE_2.figure(("cifar10",), H14_JFT),),
        ("cifar10", "top-1", "ViT-L/16"): (TABLE_2.figure(("cifar10",), L16_JFT),),
        ("flowers", "top-1", "ViT-H/14"): (TABLE_2.figure(("flowers",), H14_JFT),),
        ("objectnet", "top-5", "ViT-H/14"): (Figure(OBJECTNET["top5"]),),
        VIZWIZ_ALL: (Figure(49.0),),
        VIZWIZ_CLEAN: (None,),
    },
    (
        "JFT-300M and the models that were pre-trained on it are not public: WEIGHTS is a "
        "pre-training of your own",
        "objectnet: section D.9 of the paper, which also has top-1 "
        f"{OBJECTNET['top1']}; neither its resolution nor its rule is known, beyond that it "
        "follows BiT",
        "vizwiz, all images: not in the paper, of others; its labels are not public, so evaluate "
        "writes the file for its server (EvalAI, challenge 1999)",
        "vizwiz, clean images: the leaderboard has 450 percent, which is a typing error",
    ),
)
