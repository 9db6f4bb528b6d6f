"""The released file that a run starts from if its config leaves that open."""

import jax
import psutil

from vit_jax.analysis.macs import count_macs, count_params
from vit_jax.models.config import ModelConfig
from vit_jax.training.measuring import macs_per_second
from vit_jax.weights.catalogue.download import is_cached, shown_address
from vit_jax.weights.catalogue.names import releases
from vit_jax.weights.catalogue.released import Release

# On a CPU, what computing features of the images once may take.
_SECONDS = 60.0
# A parameter in training: itself, its gradient and two moments of it, in float32. They may take
# this share of the memory, and activations the rest.
_BYTES, _SHARE = 16, 0.5


def best_release(images: int, *, on_cpu: bool) -> tuple[Release, str]:
    """The file of the highest published top-1 among those that fit this machine, and why.

    It fits if parameters, gradients and moments take no more than half of a device's memory. On a
    CPU, features of the images must take less than a minute too, by the model's multiply-adds and
    the measured speed of a small ViT; where no file is as quick, the quickest is taken. Where a
    figure is published for a file before and after its fine-tuning, the cheaper one is taken.

    Args:
      images: whose features will be computed.
    """
    known = [release for release in releases() if release.accuracy is not None]
    memory = _memory()
    known = [each for each in known if _BYTES * _parameters(each) <= _SHARE * memory] or known
    macs = {each: sum(count_macs(_model(each)).values()) for each in known}
    known.sort(key=lambda each: (-(each.accuracy or 0.0), macs[each]))
    if not on_cpu:
        return known[0], _in_words(
            known[0], f"of the released files that fit into {memory / 2**30:.0f} GiB, the best"
        )
    rate = macs_per_second()
    seconds = {each: macs[each] * images / rate for each in known}
    quick = [each for each in known if seconds[each] < _SECONDS]
    chosen = quick[0] if quick else min(known, key=macs.__getitem__)
    took = f"features of {images:,} images take about {seconds[chosen]:.0f} s"
    if quick:
        return chosen, _in_words(
            chosen, f"of the released files that need less than a minute here ({took}), the best"
        )
    return chosen, _in_words(chosen, f"the quickest of the released files ({took})")


def _model(release: Release) -> ModelConfig:
    size = release.resolution or 224
    model = ModelConfig(release.model, image_size=size, num_classes=release.num_classes or 0)
    return model.completed()


def _parameters(release: Release) -> int:
    model = _model(release)
    more = (model.size.width or 0) ** 2 if release.has_pre_logits else 0
    return sum(count_params(model).values()) + more


def _memory() -> int:
    """Bytes of a device, or those of the host that are free."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return int(stats.get("bytes_limit") or psutil.virtual_memory().available)


def _in_words(release: Release, which: str) -> str:
    """Which file it is, its score, source and size, so that they are known before the download."""
    mib = 4 * _parameters(release) / 2**20
    where = "in the cache" if is_cached(release.url) else f"from {shown_address(release.url)}"
    return (
        f"{which}, {release.accuracy:.2f} % top-1 on ImageNet ({release.accuracy_source}); "
        f"{mib:,.0f} MiB {where}"
    )
