import pytest

from vit_jax import create_model
from vit_jax.errors import UserError
from vit_jax.models import list_models
from vit_jax.models.sizes import SIZES, parse_name

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


def test_sizes_are_the_published_ones():
    assert SIZES == PUBLISHED


def test_every_size_is_listed_on_every_released_patch_and_reads_back():
    names = list_models()
    assert names == [f"ViT-{size}/{patch}" for size in PUBLISHED for patch in (8, 14, 16, 32)]
    assert [parse_name(n) for n in names] == [
        (size, patch) for size in PUBLISHED for patch in (8, 14, 16, 32)
    ]


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
def test_spellings(name, expected):
    assert parse_name(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("", "ViT", "ViT-B", "B", "16", "ViT-X/16", "ViT-B/0", "ViT-B/016", "ViT-B/-16"),
        *("ViT-B/16/", "ViT-B//16", " B/16", "B/16\n", "ViT-B/16.5", "B/sixteen", "ViTB16"),
        *("R50+ViT-B/16", "vit_base_patch16_224", "B16x2"),
        # Letters and digits that only equal these in Unicode's eyes.
        *("ViT-\u017f/16", "B/1\u0666"),
    ],
)
def test_other_names_are_refused_in_one_line(name):
    with pytest.raises(UserError, match="no such model; write ViT-SIZE/PATCH") as error:
        parse_name(name)
    message = str(error.value)
    assert repr(name) in message
    assert "\n" not in message


def test_create_model_refuses_an_unknown_name():
    with pytest.raises(UserError, match="'ViT-Q/16'"):
        create_model("ViT-Q/16")
