import itertools

import numpy as np
import pytest
from flax import nnx
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from tests.small_models import small_vit
from vit_jax.analysis.patch_filters import principal_filters
from vit_jax.analysis.position_similarity import added_positions, position_similarity
from vit_jax.models.positions import sincos2d
from vit_jax.models.vit import ViT


def test_components_are_scikit_learns() -> None:
    kernel = np.random.default_rng(0).normal(size=(4, 5, 3, 96)) * np.arange(1, 4)[:, None]
    found = principal_filters(kernel, 28)
    expected = PCA(28).fit(kernel.reshape(60, 96).T)
    assert found.filters.shape == (28, 4, 5, 3)
    components = found.filters.reshape(28, 60)
    # The sign of a component is arbitrary.
    cosines = np.abs((components * expected.components_).sum(axis=1))
    np.testing.assert_allclose(cosines, 1, rtol=1e-9)
    np.testing.assert_allclose(found.explained, expected.explained_variance_ratio_, rtol=1e-9)
    largest = np.abs(components).argmax(axis=1)
    assert (components[np.arange(28), largest] > 0).all()


def test_there_are_no_more_components_than_filters() -> None:
    kernel = np.random.default_rng(0).normal(size=(4, 4, 3, 10))
    assert len(principal_filters(kernel).filters) == 10


def test_similarities_are_scikit_learns_by_row_and_column() -> None:
    embeddings = np.random.default_rng(0).normal(size=(6, 8))
    found = position_similarity(embeddings, (2, 3))
    expected = cosine_similarity(embeddings)
    for row, column, other, beside in itertools.product(range(2), range(3), range(2), range(3)):
        cosine = expected[row * 3 + column, other * 3 + beside]
        assert found[row, column, other, beside] == pytest.approx(cosine)


def test_an_embedding_of_zeros_is_like_no_other() -> None:
    found = position_similarity(np.array([[0.0, 0.0], [1.0, 0.0]]), (1, 2))
    assert found.reshape(2, 2).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("pooling", ["token", "gap"])
def test_learned_positions_are_those_of_patches(pooling: str) -> None:
    model = ViT(small_vit(pooling=pooling, registers=2), rngs=nnx.Rngs(0))
    table = np.asarray(getattr(model, "pos_embedding")[...])[0]  # noqa: B009
    np.testing.assert_array_equal(added_positions(model), table[-4:])


def test_positions_of_other_schemes() -> None:
    waves = ViT(small_vit(positions="sincos2d"), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(added_positions(waves), sincos2d((2, 2), 16)[0])
    assert not added_positions(ViT(small_vit(positions="none"), rngs=nnx.Rngs(0))).any()
