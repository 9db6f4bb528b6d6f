"""What models of equal blocks on the patches of an image have in common: ViT and Mixer."""

from collections.abc import Collection

from flax import nnx
from jax import Array

from vit_jax.models import blocks
from vit_jax.models.model import Model
from vit_jax.models.placement import OneDevice, Placement
from vit_jax.parameters import Table, dense

_PATCH = ("height", "columns", "channels")
PATCH_EMBEDDING: Table = dense(_PATCH, ("width",), "stem")


class TokenModel(Model):
    """A model of equal blocks on the patches of an image."""

    embedding: nnx.Conv
    blocks: nnx.Module
    norm: nnx.LayerNorm

    def _add_embedding(self, channels: int, width: int, rngs: nnx.Rngs) -> None:
        side = (self.config.embedding_size,) * 2
        dtype = self.config.dtype
        self.embedding = nnx.Conv(
            channels, width, side, strides=side, padding="VALID", dtype=dtype, rngs=rngs
        )

    def patches(self, images: Array, *, placement: Placement | None = None) -> Array:
        """See `Model.patches`."""
        del placement
        return self._embed(self._checked(images))

    def _embed(self, x: Array) -> Array:
        """[batch, height, width, channels] -> [batch, rows * columns, width]."""
        x = self.embedding(x)
        return x.reshape(x.shape[0], -1, x.shape[-1])

    def tokens(
        self, patches: Array, *, key: Array | None = None, placement: Placement | None = None
    ) -> Array:
        """See `Model.tokens`."""
        del key
        placement = placement or OneDevice()
        return placement.constrain(placement.gather_sequence(patches))

    def _before_layers(self, tokens: Array) -> Array:
        """Changes the tokens [batch, T, width] before each block."""
        return tokens

    def encode(
        self,
        tokens: Array,
        *,
        key: Array | None = None,
        placement: Placement | None = None,
        capture: Collection[str] = (),
    ) -> tuple[Array, dict[str, Array]]:
        """See `Model.encode`."""
        placement = placement or OneDevice()
        of_blocks = {*capture, "layers"} if "normed_layers" in capture else capture
        tokens, captured = blocks.run(
            self.blocks, tokens, self.config, key, placement, of_blocks, self._before_layers
        )
        if "normed_layers" in capture:
            captured["normed_layers"] = self.norm(captured["layers"])
        if "tokens" in capture:
            captured["tokens"] = self.norm(tokens)
        return tokens, {name: x for name, x in captured.items() if name in capture}
