"""Captions of files reach the clips that they are for, and BLIP-2 sees the middle frame."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.curation.film_files import scene
from tooncrafter_jax.curation import captions
from tooncrafter_jax.curation.captions import Blip2Captions, Caption, SidecarCaptions, read_captions
from tooncrafter_jax.curation.protocols import Stage
from tooncrafter_jax.data.records import Clip, clip_of_pictures
from tooncrafter_jax.errors import UserError

ROWS = [
    {"source": "film", "caption": "a  film of\n foxes"},
    {"source": "film", "start": 10, "stop": 20, "caption": "a fox runs"},
    {"source": "film", "start": 20, "caption": "a fox sleeps"},
    {"id": "series/1/000000-000008", "caption": "the title"},
    {"source": "series/1.mkv", "start": "0", "stop": "8", "caption": "être"},
]


def clip_of(source: str, start: int, length: int = 8, **fields) -> Clip:
    pictures = np.zeros((length, 8, 8, 3), np.uint8)
    name = f"{source}/{start:06}-{start + length:06}"
    return clip_of_pictures(pictures, fps=8.0, id=name, source=source, start_frame=start, **fields)


def written(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".csv":
        columns = ["id", "source", "start", "stop", "caption", "remark"]
        lines = [",".join(columns)]
        for row in rows:
            lines.append(",".join('"' + str(row.get(key, "")).replace('"', '""') + '"' for key in columns))
        path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
def test_every_kind_of_file_holds_the_same(tmp_path, kind):
    assert read_captions(written(tmp_path / f"c.{kind}", ROWS)) == [
        Caption("a film of foxes", "film"),
        Caption("a fox runs", "film", start=10, stop=20),
        Caption("a fox sleeps", "film", start=20),
        Caption("the title", "series/1", id="series/1/000000-000008"),
        Caption("être", "series/1.mkv", start=0, stop=8),
    ]


def test_separators_that_json_allows_in_text_end_no_line(tmp_path):
    rows = [{"source": "film", "caption": "a\u2028b\x85c"}, {"source": "film", "caption": "d"}]
    path = tmp_path / "c.jsonl"
    path.write_bytes("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    assert [caption.text for caption in read_captions(path)] == ["a b c", "d"]  # white space is one space


@pytest.mark.parametrize(
    ("source", "start", "length", "expected"),
    [
        ("film", 0, 8, "a film of foxes"),
        ("film", 5, 8, "a film of foxes"),  # three frames of eight are in the range
        ("film", 6, 8, "a fox runs"),  # half
        ("film", 15, 8, "a fox runs"),
        ("film", 17, 8, "a fox sleeps"),
        ("film", 400, 8, "a fox sleeps"),
        ("series/1", 0, 8, "the title"),
        ("series/1", 1, 8, "être"),
        ("series/1", 100, 8, ""),
        ("series/2", 0, 8, ""),
    ],
)
def test_which_caption_a_clip_gets(tmp_path, source, start, length, expected):
    stage = SidecarCaptions(written(tmp_path / "c.json", ROWS))
    clip = stage(clip_of(source, start, length))
    assert (clip.caption, clip.caption_from) == (expected, "sidecar" if expected else "")


def test_an_object_from_film_to_caption(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"film.mp4": "a fox"}))
    assert SidecarCaptions(tmp_path / "c.json")(clip_of("film", 3)).caption == "a fox"


def test_a_clip_without_a_row_keeps_its_own(tmp_path):
    stage = SidecarCaptions(written(tmp_path / "c.json", ROWS))
    clip = clip_of("emoji", 0, caption="a runner", caption_from="unicode")
    assert stage(clip) is clip


def test_captions_of_other_films_are_reported(tmp_path):
    stage = SidecarCaptions(written(tmp_path / "c.json", ROWS))
    assert stage.mismatch(["film", "series/1"]) is None
    assert stage.mismatch(["film", "series/1", "without"]) is None  # captions may be missing
    sentence = stage.mismatch(["film", "other"])
    assert sentence is not None
    assert "1 films that are not here ('series/1'), and none for 1 of the 2" in sentence
    many = SidecarCaptions(written(tmp_path / "d.json", [{"source": f"f{n}", "caption": "x"} for n in range(9)]))
    assert "9 films that are not here ('f0', 'f1', 'f2', ...), and none for 2 of the 2" in str(
        many.mismatch(["a", "b"])
    )


def test_a_changed_file_is_read_again(tmp_path):
    path = written(tmp_path / "c.json", ROWS[:1])
    stage = pickle.loads(pickle.dumps(SidecarCaptions(path)))
    before = stage.settings()
    assert stage(clip_of("film", 0)).caption == "a film of foxes"
    written(path, [{"source": "film", "caption": "a film of wolves and foxes"}])
    assert stage(clip_of("film", 0)).caption == "a film of wolves and foxes"
    assert stage.settings() != before
    assert isinstance(stage, Stage)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "source,captoin\na,b\n", "row 1 of .* lacks 'caption'"),
        ("c.csv", "caption\nb\n", "both 'source' and 'id'"),
        ("c.csv", 'source,caption\na,"b\n', "is not CSV"),
        ("c.jsonl", '{"source": "a", "caption": "b"}\n{"source": ', "is not JSONL"),
        ("c.json", '[{"source": "a", "caption": "b", "start": "soon"}]', "entry 1 .* 'start' = 'soon'"),
        ("c.json", '[{"source": "a", "caption": "b", "stop": -4}]', "'stop' = -4"),
        ("c.json", '["a"]', "no object"),
        ("c.json", '"a"', "neither a list nor an object"),
        ("c.txt", "a", "unknown kind"),
        ("c.csv", b"source,caption\na,\xff\xfe\n", "not in UTF-8"),
    ],
)
def test_damaged_files_are_reported(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        SidecarCaptions(path)(clip_of("a", 0))


def test_a_missing_file_is_reported(tmp_path):
    for use in (lambda stage: stage(clip_of("a", 0)), lambda stage: stage.settings()):
        with pytest.raises(UserError, match="cannot be read .No such file"):
            use(SidecarCaptions(tmp_path / "c.csv"))


@pytest.mark.gate
def test_directories_without_blip2_are_reported(tmp_path):
    pytest.importorskip("transformers", reason="needs the extra 'torch-data'")
    with pytest.raises(UserError, match="no config.json"):
        Blip2Captions(tmp_path).settings()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="of type 'bert'"):
        Blip2Captions(tmp_path)(clip_of("a", 0))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip-2"}))
    with pytest.raises(UserError, match="holds no whole BLIP-2"):
        Blip2Captions(tmp_path)(clip_of("a", 0))


@pytest.mark.slow
def test_blip2_sees_the_middle_frame(tmp_path):
    """With a small model of random weights, whose words for a picture are those that transformers gives by itself."""
    torch = pytest.importorskip("torch", reason="needs the extra 'torch-data'")
    transformers = pytest.importorskip("transformers", reason="needs the extra 'torch-data'")
    save_small_blip2(tmp_path)
    pictures = np.stack([scene(seed) for seed in (1, 2, 3, 4, 5)])
    clip = clip_of_pictures(pictures, fps=2.0, id="a", source="a")
    found = Blip2Captions(tmp_path, max_tokens=8)(clip)
    assert found.caption_from == "blip2" and found.frames == clip.frames

    processor = transformers.Blip2Processor.from_pretrained(tmp_path)
    model = transformers.Blip2ForConditionalGeneration.from_pretrained(tmp_path)

    def words(picture: np.ndarray, **text: str) -> str:
        with torch.inference_mode():
            ids = model.generate(
                **processor(images=picture, return_tensors="pt", **text), max_new_tokens=8, do_sample=False
            )
        return processor.batch_decode(ids, skip_special_tokens=True)[0].strip()

    said = [words(picture) for picture in clip.decode()]
    assert len(set(said)) > 1  # it does look at the picture
    assert found.caption == said[2] and said[2] not in (said[0], said[4])
    prompted = Blip2Captions(tmp_path, prompt="a fox", max_tokens=8)
    assert prompted(clip).caption == words(clip.decode([2])[0], text="a fox")
    assert prompted.settings() != Blip2Captions(tmp_path).settings()
    already = clip_of("a", 0, caption="mine")
    assert prompted(already) is already
    captions.load_blip2.cache_clear()


def save_small_blip2(directory: Path) -> None:
    import tokenizers
    import torch
    import transformers

    words = "<pad> <s> </s> <unk> a fox runs over the green hill and sleeps under trees <image>".split()
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = transformers.BlipImageProcessor(size={"height": 28, "width": 28})
    transformers.Blip2Processor(images, tokenizer, num_query_tokens=4).save_pretrained(directory)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(3)
    model = transformers.Blip2ForConditionalGeneration(
        transformers.Blip2Config(
            vision_config={**sizes, "intermediate_size": 32, "image_size": 28, "patch_size": 14},
            qformer_config={
                **sizes,
                "vocab_size": 20,
                "intermediate_size": 32,
                "encoder_hidden_size": 16,
                "cross_attention_frequency": 1,
            },
            text_config={
                **sizes,
                "model_type": "opt",
                "vocab_size": len(words),
                "ffn_dim": 32,
                "max_position_embeddings": 64,
                "word_embed_proj_dim": 16,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
            },
            num_query_tokens=4,
            image_token_index=words.index("<image>"),
        )
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.6)  # pictures must matter
    model.save_pretrained(directory)
