"""Whatever a weight file's tensors are called, and whatever shapes they have: they are a model's, or a sentence is."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import strategies as st

from tests.hostile.amounts import amounts, holds_for
from tests.hostile.strategies import texts
from tests.reference import key_list
from tests.weights import layouts
from tests.weights.layouts import Listed, Tensors
from tooncrafter_jax import notes
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.models.configuration import tiny
from tooncrafter_jax.weights.joining import JoinedSource
from tooncrafter_jax.weights.loading import map_source
from tooncrafter_jax.weights.relatives import adapted

CONFIG = tiny()
NETWORKS = CONFIG.networks()


@cache
def names() -> tuple[str, ...]:
    """Of all layouts, and what is like them."""
    whole = layouts.model()
    kinds = (
        whole,
        layouts.sketch_encoder(),
        layouts.u_net(whole),
        layouts.open_clip(whole),
        layouts.transformers_text(whole),
        layouts.transformers_vision(whole, ""),
    )
    more = ("model_ema.decay", "embeddings.position_ids", "logit_scale", "init_attn.weight", "out", "output_blocks.2")
    return (*(name for kind in kinds for name in kind.shapes), *more)


@st.composite
def some_names(draw: st.DrawFn) -> str:
    """A name of a layout, with perhaps one of its parts replaced or removed, or another in front."""
    parts = draw(st.sampled_from(names())).split(".")
    place = draw(st.integers(0, len(parts) - 1))
    match draw(st.sampled_from(("none", "none", "remove", "replace", "number", "prefix"))):
        case "remove":
            del parts[place]
        case "replace":
            parts[place] = draw(texts | st.sampled_from(("weight", "bias", "0", "conv", "self_attn", "q_proj")))
        case "number":
            parts[place] = str(draw(st.integers(-1, 10**30)))
        case "prefix":
            parts[:0] = [draw(st.sampled_from(("module", "_forward_module", "text_model", "visual", "control_model")))]
    return ".".join(parts)


shapes = st.lists(st.sampled_from((0, 1, 3, 64, 96)), max_size=5).map(tuple)


def fits_or_is_refused(files: list[dict[str, tuple[int, ...]]]) -> None:
    try:
        sources = [Listed(Tensors(file, lambda name, file=file: np.zeros(file[name], np.float32))) for file in files]
        joined = JoinedSource(sources)
        map_source(joined, adapted(CONFIG, joined), networks=NETWORKS)
    except UserError as error:
        assert len(str(error)) < 40_000


@amounts
def test_any_names_and_shapes(examples: int) -> None:
    file = st.dictionaries(some_names(), shapes, max_size=8)
    with notes.collected():
        holds_for(examples, st.lists(file, min_size=1, max_size=3), fits_or_is_refused)


@amounts
def test_any_shape_of_a_whole_tower(examples: int) -> None:
    """All names are right, and a few shapes are not."""
    right = layouts.transformers_vision(layouts.model()).shapes
    wrong = st.dictionaries(st.sampled_from(sorted(right)), shapes, min_size=1, max_size=4)
    with notes.collected():
        holds_for(examples, wrong, lambda changes: fits_or_is_refused([{**right, **changes}]))


def test_the_names_are_those_of_the_lists() -> None:
    assert set(key_list("tiny/keys.tsv")) <= set(names())
