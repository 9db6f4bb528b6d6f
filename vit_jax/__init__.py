"""Vision Transformers in JAX and Flax, from the paper to a TPU pod.

model = vit_jax.create_model("ViT-B/16", image_size=224, num_classes=1000, seed=0)
logits = model(images)  # float [batch, 224, 224, 3] -> [batch, 1000]
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vit_jax.models import create_model, list_models

__all__ = ["__version__", "create_model", "list_models"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Deferred, so that data workers, which import this package too, start without JAX.
    if name in ("create_model", "list_models"):
        from vit_jax import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
