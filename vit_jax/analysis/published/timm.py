"""What timm measured on weights that this package reads: huggingface/pytorch-image-models."""

from vit_jax.analysis.published.grid import Grid, figures

TIMM = Grid(
    "top-1 in percent with timm's own resizing and crop",
    "github.com/huggingface/pytorch-image-models, results/ at commit aa4b5850",
    ("model",),
    (
        *("imagenet", "imagenet_real", "imagenet_v2", "imagenet_sketch"),
        *("imagenet_a", "imagenet_r"),
    ),
    {
        ("deit_tiny_patch16_224.fb_in1k",): figures(72.190, 80.026, 59.92, 20.140, 7.213, 32.713),
        ("deit_base_patch16_224.fb_in1k",): figures(81.980, 86.833, 70.97, 32.390, 27.173, 44.913),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k",): figures(
            75.452, 82.061, 63.11, 20.460, 9.053, 32.150
        ),
        ("vit_small_patch16_224.augreg_in21k_ft_in1k",): figures(
            81.402, 86.854, 70.63, 32.893, 26.787, 46.033
        ),
        ("vit_small_patch16_384.augreg_in21k_ft_in1k",): figures(
            83.814, 88.650, 73.17, 35.517, 45.360, 50.170
        ),
        ("vit_base_patch16_224.orig_in21k_ft_in1k",): figures(
            81.782, 86.754, 71.07, 35.776, 31.587, 47.400
        ),
        ("vit_base_patch16_384.orig_in21k_ft_in1k",): figures(
            84.212, 88.398, 73.78, 38.126, 50.053, 51.050
        ),
        ("vit_base_patch16_224.augreg_in21k_ft_in1k",): figures(
            84.534, 88.887, 74.10, 43.261, 43.133, 56.860
        ),
        ("vit_base_patch16_224.augreg2_in21k_ft_in1k",): figures(
            85.108, 89.457, 75.32, 45.106, 49.733, 59.223
        ),
        ("vit_base_patch16_384.augreg_in21k_ft_in1k",): figures(
            86.010, 89.969, 76.16, 45.896, 63.027, 60.187
        ),
        ("vit_base_patch32_384.augreg_in21k_ft_in1k",): figures(
            83.358, 87.903, 72.68, 38.828, 36.520, 53.403
        ),
        ("vit_base_r50_s16_384.orig_in21k_ft_in1k",): figures(
            84.988, 88.802, 75.42, 43.532, 54.347, 54.387
        ),
        ("vit_large_patch16_384.augreg_in21k_ft_in1k",): figures(
            87.096, 90.219, 77.79, 52.799, 71.053, 67.123
        ),
        ("vit_large_r50_s32_384.augreg_in21k_ft_in1k",): figures(
            86.188, 89.790, 76.89, 52.035, 61.187, 64.167
        ),
        ("mixer_b16_224.goog_in21k_ft_in1k",): figures(
            76.616, 82.012, 63.22, 25.153, 8.400, 34.323
        ),
    },
    (
        "timm crops 0.9 of the side at 224 pixels, 1.0 at 384, 0.875 for Mixer, bicubic; with "
        "another preprocessing a file has some tenths of a percent more or less",
        "imagenet_a and imagenet_r: over their own 200 classes",
    ),
)
# The released files that timm's weights were made from, as its own sources (1.0.29) name them; with
# `orig` it names only the model.
RELEASED = {
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": "augreg/Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03"
    "-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224",
    "vit_small_patch16_224.augreg_in21k_ft_in1k": "augreg/S_16-i21k-300ep-lr_0.001-aug_light1"
    "-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_224",
    "vit_small_patch16_384.augreg_in21k_ft_in1k": "augreg/S_16-i21k-300ep-lr_0.001-aug_light1"
    "-wd_0.03-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384",
    "vit_base_patch16_224.orig_in21k_ft_in1k": "imagenet21k+imagenet2012/ViT-B_16-224",
    "vit_base_patch16_384.orig_in21k_ft_in1k": "imagenet21k+imagenet2012/ViT-B_16",
    "vit_base_patch16_224.augreg_in21k_ft_in1k": "augreg/B_16-i21k-300ep-lr_0.001-aug_medium1"
    "-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_224",
    "vit_base_patch16_384.augreg_in21k_ft_in1k": "augreg/B_16-i21k-300ep-lr_0.001-aug_medium1"
    "-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384",
    "vit_base_patch32_384.augreg_in21k_ft_in1k": "augreg/B_32-i21k-300ep-lr_0.001-aug_light1"
    "-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384",
    "vit_base_r50_s16_384.orig_in21k_ft_in1k": "imagenet21k+imagenet2012/R50+ViT-B_16",
    "vit_large_patch16_384.augreg_in21k_ft_in1k": "augreg/L_16-i21k-300ep-lr_0.001-aug_medium1"
    "-wd_0.1-do_0.1-sd_0.1--imagenet2012-steps_20k-lr_0.01-res_384",
    "vit_large_r50_s32_384.augreg_in21k_ft_in1k": "augreg/R50_L_32-i21k-300ep-lr_0.001-aug_medium2"
    "-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_384",
}
