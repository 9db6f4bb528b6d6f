from typing import Any

import pytest

from vit_jax import create_model
from vit_jax.errors import UserError
from vit_jax.models import list_models
from vit_jax.models.config import ModelConfig
from vit_jax.models.sizes import MIXER_SIZES, SIZES, parse_name

# (blocks, width, MLP width, heads). B, L and H: Table 1 of the paper; the others as in the
# model code of vision_transformer and big_vision.
PUBLISHED = {
    "mu": (1, 32, 128, 2),
    "Ti": (12, 192, 768, 3),
    "S": (12, 384, 1536, 6),
    "M": (12, 512, 2048, 8),
    "B": (12, 768, 3072, 12),
    "L": (24, 1024, 4096, 16),
    "So400m": (27, 1152, 4304, 16),
    "H": (32, 1280, 5120, 16),
    "g": (40, 1408, 6144, 16),
    "G": (48, 1664, 8192, 16),
    "e": (56, 1792, 15360, 16),
}


# (blocks, width, MLP width of channels, of tokens): Table 1 of MLP-Mixer (arXiv 2105.01601).
PUBLISHED_MIXERS = {
    "S": (8, 512, 2048, 256),
    "B": (12, 768, 3072, 384),
    "L": (24, 1024, 4096, 512),
    "H": (32, 1280, 5120, 640),
}


def _read(name: str) -> tuple[object, ...]:
    """What a name tells but its blocks and backbone, which follow from the size and the family."""
    read = parse_name(name)
    sizes = PUBLISHED_MIXERS if read.family == "mixer" else PUBLISHED
    assert read.blocks == sizes.get(read.size)
    assert read.has_backbone == (read.family in ("hybrid", "resnet", "axial_resnet"))
    return read.family, read.size, read.patch_size, read.stages, read.width_factor, read.order


def test_sizes_are_the_published_ones() -> None:
    assert SIZES == PUBLISHED
    assert MIXER_SIZES == PUBLISHED_MIXERS


def test_every_size_is_listed_on_every_released_patch_and_reads_back() -> None:
    names = [name for name in list_models() if name.startswith("ViT-")]
    assert names == [f"ViT-{size}/{patch}" for size in PUBLISHED for patch in (8, 14, 16, 32)]
    assert [_read(n) for n in names] == [
        ("vit", size, patch, None, 1, "post") for size in PUBLISHED for patch in (8, 14, 16, 32)
    ]


def test_other_families_are_listed_and_can_be_made() -> None:
    names = set(list_models())
    # Table 6 of the paper, and what was released besides.
    assert {"R50x1", "R50x2", "R101x1", "R152x1", "R152x2", "R200x3"} <= names
    assert {f"BiT-R{n}" for n in ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")} <= names
    assert {"R50+ViT-B/32", "R50+ViT-B/16", "R50+ViT-L/32", "R50+ViT-L/16"} <= names
    assert {"R26+ViT-S/32", "R26+ViT-B/32", "R+ViT-Ti/16"} <= names
    assert {"Mixer-S/16", "Mixer-B/16", "Mixer-B/32", "Mixer-L/16"} <= names
    # Figure 13.
    assert {"AxialViT-B/32", "AxialViT-B/16", "AxialResNet-50"} <= names
    assert len(names) == len(list_models())
    for name in names:
        assert ModelConfig(name).family == parse_name(name).family


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("R50+ViT-B/16", ("hybrid", "B", 16, (3, 4, 9), 1, "post")),
        ("R50+ViT-B_16", ("hybrid", "B", 16, (3, 4, 9), 1, "post")),
        ("r50_b16", ("hybrid", "B", 16, (3, 4, 9), 1, "post")),
        ("R50x1+ViT-L/32", ("hybrid", "L", 32, (3, 4, 6, 3), 1, "post")),
        ("R50_L_32", ("hybrid", "L", 32, (3, 4, 6, 3), 1, "post")),
        ("R26_S_32", ("hybrid", "S", 32, (2, 2, 2, 2), 1, "post")),
        ("R26+ViT-B/16", ("hybrid", "B", 16, (2, 2, 4), 1, "post")),
        ("R101x2+ViT-g/32", ("hybrid", "g", 32, (3, 4, 23, 3), 2, "post")),
        # 8 x 8 patches of what the root leaves of 4 x 4 pixels.
        ("R+ViT-Ti/16", ("hybrid", "Ti", 32, (), 1, "post")),
        ("R_Ti_16", ("hybrid", "Ti", 32, (), 1, "post")),
        # Other patches need other stages than the known ones.
        ("R50+ViT-B/8", ("hybrid", "B", 8, None, 1, "post")),
        ("R50x1", ("resnet", "", 0, (3, 4, 6, 3), 1, "post")),
        ("r152x0.5", ("resnet", "", 0, (3, 8, 36, 3), 0.5, "post")),
        ("BiT-R200x3", ("resnet", "", 0, (3, 24, 36, 3), 3, "pre")),
        ("bit_r101x1", ("resnet", "", 0, (3, 4, 23, 3), 1, "pre")),
        ("Mixer-B/16", ("mixer", "B", 16, None, 1, "post")),
        ("mixer_l32", ("mixer", "L", 32, None, 1, "post")),
        ("Mixer-S_16", ("mixer", "S", 16, None, 1, "post")),
        ("AxialViT-B/16", ("axial_vit", "B", 16, None, 1, "post")),
        ("axial_vit_ti4", ("axial_vit", "Ti", 4, None, 1, "post")),
        ("AxialResNet-50", ("axial_resnet", "", 0, (3, 4, 6, 3), 1, "post")),
        ("axialresnet50", ("axial_resnet", "", 0, (3, 4, 6, 3), 1, "post")),
    ],
)
def test_spellings_of_other_families(name: str, expected: Any) -> None:
    assert _read(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B/16", ("B", 16)),
        ("ViT-B_16", ("B", 16)),
        ("ViT-B-16", ("B", 16)),
        ("B/16", ("B", 16)),
        ("B_16", ("B", 16)),
        ("b16", ("B", 16)),
        ("vit_b16", ("B", 16)),
        ("vit_b_16", ("B", 16)),
        ("VIT-TI/16", ("Ti", 16)),
        ("ti16", ("Ti", 16)),
        ("s32", ("S", 32)),
        ("m16", ("M", 16)),
        ("mu16", ("mu", 16)),
        ("so400m14", ("So400m", 14)),
        ("ViT-SO400M/14", ("So400m", 14)),
        ("E14", ("e", 14)),
        # Their case alone tells these two apart.
        ("g14", ("g", 14)),
        ("ViT-g/14", ("g", 14)),
        ("G14", ("G", 14)),
        ("vit_G14", ("G", 14)),
        # Any patch side is a name.
        ("ViT-Ti/4", ("Ti", 4)),
    ],
)
def test_spellings(name: str, expected: Any) -> None:
    assert _read(name) == ("vit", *expected, None, 1, "post")


@pytest.mark.parametrize(
    "name",
    [
        *("", "ViT", "ViT-B", "B", "16", "ViT-X/16", "ViT-B/0", "ViT-B/016", "ViT-B/-16"),
        *("ViT-B/16/", "ViT-B//16", " B/16", "B/16\n", "ViT-B/16.5", "B/sixteen", "ViTB16"),
        *(
            "vit_base_patch16_224",
            "B16x2",
            "R51x1",
            "R50",
            "BiT-M-R50x1",
            "R50x",
            "BiT-R50+ViT-B/16",
        ),
        *("Mixer-Ti/16", "Mixer-B", "R50+Mixer-B/16", "R50ViT-B/16"),
        *("Axial-B/16", "AxialViT", "R50+AxialViT-B/16"),
        # Letters and digits that only equal these in Unicode's eyes.
        *("ViT-\u017f/16", "B/1\u0666"),
    ],
)
def test_other_names_are_refused_in_one_line(name: Any) -> None:
    with pytest.raises(UserError, match="no such model; write ViT-SIZE/PATCH") as error:
        parse_name(name)
    message = str(error.value)
    assert repr(name) in message
    assert "\n" not in message


def test_create_model_refuses_an_unknown_name() -> None:
    with pytest.raises(UserError, match="'ViT-Q/16'"):
        create_model("ViT-Q/16")
