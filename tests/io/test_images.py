"""Reading pictures of every kind, refusing what is none, and the resizing rules of the published code."""

from __future__ import annotations

import inspect
import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.io.picture_files import png_bytes, png_chunk
from tooncrafter_jax.errors import UserError
from tooncrafter_jax.io import fit_image, grey_of_rgb, read_image, resize_tensor_like_app, sketch_to_hint
from tooncrafter_jax.io.fitting import bilinear_weights
from tooncrafter_jax.io.sizes import MAX_ASPECT

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny"


def drawing(height: int = 24, width: int = 40) -> np.ndarray:
    """A picture without symmetry, smooth enough for lossy formats."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / (width - 1), 255 * y / (height - 1), 255 * (x + 2 * y) / (width + 2 * height)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def refusal(path: Path) -> str:
    """The message with which a file is refused; checks what every such message keeps to."""
    with pytest.raises(UserError) as caught:
        read_image(path)
    message = str(caught.value)
    assert f"'{path}'" in message and ": " in message and "\n" not in message and not message.endswith(".")
    return message


# --- reading ---


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp"])
def test_every_supported_format_gives_back_the_picture(tmp_path, extension):
    path = tmp_path / f"a{extension}"
    options: dict[str, Any] = {"quality": 95} if extension in (".jpg", ".jpeg", ".webp") else {}
    Image.fromarray(drawing()).save(path, **options)
    image = read_image(str(path))
    assert image.dtype == np.uint8 and image.flags.writeable
    difference = np.abs(image.astype(int) - drawing())
    # The lossy formats halve the colour resolution: 12 levels at the steepest edge of this drawing.
    assert difference.max() <= (12 if options else 0)


def test_the_contents_count_and_not_the_extension(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(drawing()).save(path, "PNG")
    np.testing.assert_array_equal(read_image(path), drawing())


def test_first_frame_of_an_animation_is_read(tmp_path):
    path = tmp_path / "a.gif"
    frames = [Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (10, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(path), np.full((16, 16, 3), 10))


@pytest.mark.parametrize("extension", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation, extension):
    # What a camera stores when it is held so that `upright` is what its owner saw (Exif 2.32, section 4.6.4).
    upright = drawing()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if extension == ".webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a{extension}", exif=exif, **options)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{extension}"), upright)


def test_damaged_exif_does_not_spoil_a_good_picture(tmp_path, recwarn):
    path = tmp_path / "a.png"
    Image.fromarray(drawing()).save(path, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff broken")
    np.testing.assert_array_equal(read_image(path), drawing())
    assert not recwarn.list


def test_two_pictures_of_a_stereo_camera_in_one_jpeg(tmp_path):
    left, right = Image.fromarray(drawing()), Image.new("RGB", (40, 24))
    left.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[right], quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg"), drawing(), atol=12)


def test_grey_one_bit_and_palette(tmp_path):
    grey = drawing()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=-1))

    Image.fromarray(grey > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png")[..., 1], np.where(grey > 99, 255, 0))

    palette = Image.fromarray(drawing()).quantize(16)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_image(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 16 * 16).round().astype(np.uint16).reshape(16, 16)
    expected = np.round(values / 65535 * 255)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        image = read_image(tmp_path / name)
        np.testing.assert_array_equal(image, np.repeat(expected[..., None], 3, axis=-1))
        assert image.max() == 255 and 100 < image.mean() < 155


def test_sixteen_bit_colour(tmp_path):
    values = drawing(16, 16).astype(np.uint16) * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = png_bytes(struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0), png_chunk(b"IDAT", zlib.compress(rows)))
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), drawing(16, 16))


def test_sixteen_bit_grey_with_a_transparent_value(tmp_path):
    values = np.full((16, 16), 514, np.uint16)
    values[4:8] = 777
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 16, 16, 16, 0, 0, 0, 0)
    chunks = png_chunk(b"tRNS", struct.pack(">H", 777)), png_chunk(b"IDAT", zlib.compress(rows))
    (tmp_path / "a.png").write_bytes(png_bytes(header, *chunks))
    image = read_image(tmp_path / "a.png", background=(1, 20, 200))
    assert image[5, 5].tolist() == [1, 20, 200] and image[0, 0].tolist() == [2, 2, 2]


def test_transparency_shows_the_background(tmp_path):
    alpha = np.zeros((16, 16), np.uint8)
    alpha[:, 4:8], alpha[:, 8:] = 128, 255
    colour = np.full((16, 16, 3), (200, 0, 50), np.uint8)
    Image.fromarray(np.dstack([colour, alpha])).save(tmp_path / "rgba.png")
    on_white = read_image(tmp_path / "rgba.png")[0]
    assert on_white[0].tolist() == [255, 255, 255] and on_white[15].tolist() == [200, 0, 50]
    np.testing.assert_allclose(on_white[5], np.array([200, 0, 50]) * 128 / 255 + 255 * 127 / 255, atol=1)
    on_green = read_image(tmp_path / "rgba.png", background=(0, 255, 0))[0]
    assert on_green[0].tolist() == [0, 255, 0] and on_green[15].tolist() == [200, 0, 50]

    Image.fromarray(np.dstack([colour[..., 0], alpha])).save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png")[0, [0, 15], 0].tolist() == [255, 200]

    palette = Image.fromarray(np.where(alpha > 0, 1, 0).astype(np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 30, 60, 90])
    palette.save(tmp_path / "palette.png", transparency=0)
    image = read_image(tmp_path / "palette.png", background=(9, 9, 9))
    assert image[0, 0].tolist() == [9, 9, 9] and image[0, 15].tolist() == [30, 60, 90]


@pytest.mark.filterwarnings("ignore::tooncrafter_jax.notes.Note")
def test_cmyk(tmp_path):
    # Pure inks: cyan, magenta, yellow, black and bare paper.
    inks = np.zeros((16, 80, 4), np.uint8)
    for i in range(4):
        inks[:, 16 * i : 16 * i + 16, i] = 255
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg")[8, 8::16]
    expected = [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0], [255, 255, 255]]
    np.testing.assert_allclose(image, expected, atol=4)


# --- refusing ---


def test_missing_directory_and_empty(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.png")
    assert "is a directory" in refusal(tmp_path)
    (tmp_path / "empty.png").touch()
    assert "is empty" in refusal(tmp_path / "empty.png")
    (tmp_path / "file").write_text("x")
    assert "Not a directory" in refusal(tmp_path / "file" / "a.png")
    with pytest.raises(UserError, match="null"):
        read_image("a\0b.png")


def test_text_renamed_and_foreign_formats(tmp_path):
    (tmp_path / "text.png").write_text("not a picture at all\n" * 20)
    message = refusal(tmp_path / "text.png")
    assert "does not contain a picture" in message and ".png" in message and ".webp" in message
    Image.fromarray(drawing()).save(tmp_path / "a.ppm")
    assert "does not contain a picture" in refusal(tmp_path / "a.ppm")


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".jpg", ".webp", ".gif"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_truncated(tmp_path, extension, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"a{extension}"
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert re.search("damaged or cut short|does not contain a picture", refusal(path))


def test_flipped_bits_in_a_png(tmp_path):
    Image.fromarray(drawing()).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    start = data.index(b"IDAT") + 4
    data[start : start + 20] = bytes(20)
    (tmp_path / "a.png").write_bytes(data)
    assert "damaged" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("side", [20_000, 12_000, 10_001])
def test_huge_pictures_are_refused_from_their_header(tmp_path, side, recwarn):
    # Pillow itself refuses the first and warns of the others. There are no pixels: decoding would fail in other words.
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(png_bytes(header, png_chunk(b"IDAT", b"")))
    message = refusal(tmp_path / "a.png")
    assert "more than 100 megapixels" in message
    assert side == 20_000 or f"{side} x {side}" in message
    assert not recwarn.list


def test_tiny_pictures_and_strips(tmp_path):
    Image.new("RGB", (7, 300)).save(tmp_path / "tiny.png")
    assert "7 x 300" in refusal(tmp_path / "tiny.png")
    Image.new("RGB", (8 * MAX_ASPECT + 1, 8)).save(tmp_path / "strip.png")
    assert "crop it" in refusal(tmp_path / "strip.png")
    Image.new("RGB", (8 * MAX_ASPECT, 8)).save(tmp_path / "allowed.png")
    assert read_image(tmp_path / "allowed.png").shape == (8, 8 * MAX_ASPECT, 3)


def test_numbers_that_have_no_meaning_as_colour(tmp_path):
    Image.fromarray(np.ones((16, 16), np.float32)).save(tmp_path / "f.tif")
    assert "8-bit RGB" in refusal(tmp_path / "f.tif")
    Image.fromarray(np.full((16, 16), 70_000, np.int32)).save(tmp_path / "i.tif")
    assert "more than 16 bits" in refusal(tmp_path / "i.tif")
    with pytest.raises(UserError, match="background"):
        read_image(tmp_path / "f.tif", background=(0, 0, 256))


# --- fitting ---


def test_a_picture_of_the_right_size_is_only_scaled():
    image = np.load(GOLDEN / "pipeline_inference.npz")["image_first"]
    fitted = fit_image(image, 64, 128)
    assert fitted.dtype == np.float32
    np.testing.assert_allclose(fitted, image / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(("width", "left"), [(130, 1), (137, 4), (138, 5), (139, 6)])
def test_crop_rounds_halves_to_even(width, left):
    image = drawing(64, width)
    np.testing.assert_allclose(fit_image(image, 64, 128), image[:, left : left + 128] / 127.5 - 1, atol=1e-6)


def test_narrow_pictures_are_padded_with_black_with_the_odd_column_at_the_right():
    image = drawing(64, 101)
    fitted = fit_image(image, 64, 128, background=(9, 9, 9))
    np.testing.assert_allclose(fitted[:, 13:114], image / 127.5 - 1, atol=1e-6)
    assert (fitted[:, :13] == -1).all() and (fitted[:, 114:] == -1).all()


def test_the_long_side_is_cut_and_not_rounded():
    white = np.full((90, 150, 3), 255, np.uint8)  # 64 * 150 / 90 = 106.67 becomes 106 columns
    resized = resize_tensor_like_app(white.astype(np.float32), 64, 128)
    for picture, padding in ((fit_image(white, 64, 128), -1), (resized, 0)):
        assert np.flatnonzero((picture != padding).all(axis=(0, 2))).tolist() == list(range(11, 117))


def test_crop_of_a_tall_picture_cuts_rows_and_pads_columns():
    image = drawing(131, 64)
    fitted = fit_image(image, 64, 128)
    np.testing.assert_allclose(fitted[:, 32:96], image[34:98] / 127.5 - 1, atol=1e-6)
    assert (fitted[:, :32] == -1).all() and (fitted[:, 96:] == -1).all()


@pytest.mark.parametrize("size", [(90, 150), (37, 91), (333, 777)])
def test_both_resizing_paths_agree_but_for_rounding_and_padding(size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    floats = resize_tensor_like_app(image.astype(np.float32) / 255 * 2 - 1, 64, 128)
    black = fit_image(image, 64, 128)
    inside = ~(black == -1).all(axis=(0, 2))
    # The picture library rounds to bytes after each of two passes: at most one level of 2/255.
    np.testing.assert_allclose(black[:, inside], floats[:, inside], atol=1.01 * 2 / 255)


@pytest.mark.parametrize("shape", [(64, 64), (200, 100), (50, 300), (8, 250), (90, 150)])
def test_pad_keeps_the_whole_picture(shape):
    image = np.full((*shape, 3), 200, np.uint8)
    fitted = fit_image(image, 64, 128, fit="pad", background=(0, 255, 0))
    inside = np.abs(fitted - (200 / 127.5 - 1)).max(axis=-1) < 1e-6
    outside = (fitted == np.array([-1, 1, -1], np.float32)).all(axis=-1)
    assert (inside ^ outside).all()
    rows, columns = inside.any(axis=1), inside.any(axis=0)
    assert (inside == rows[:, None] & columns[None]).all()
    assert rows.all() or columns.all()
    assert abs(rows.sum() - columns.sum() * shape[0] / shape[1]) <= max(1, shape[0] / shape[1])
    for used in (rows, columns):
        before, after = used.argmax(), used[::-1].argmax()
        assert after - before in (0, 1)


def test_fit_names_the_choices_and_the_array_that_it_wants():
    # Without the run-time type checks that tests may be run with, as in use.
    fit = inspect.unwrap(fit_image)
    with pytest.raises(UserError, match="'crop' and 'pad'"):
        fit(drawing(), 64, 128, fit="stretch")
    with pytest.raises(UserError, match=r"uint8 \(height, width, 3\), not float32 \(24, 40, 3\)"):
        fit(drawing().astype(np.float32), 64, 128)
    with pytest.raises(UserError, match="not Image"):
        fit(Image.new("RGB", (64, 64)), 64, 128)
    with pytest.raises(UserError, match=r"\(24, 40, 4\)"):
        fit(np.zeros((24, 40, 4), np.uint8), 64, 128)
    with pytest.raises(UserError, match="3 x 40|40 x 3"):
        fit(np.zeros((3, 40, 3), np.uint8), 64, 128)


# --- resizing as the application does ---

# From torch.nn.functional.interpolate in float64: the column (0, 1, 4, 9, 16), and arange(24)**2 / 529 as 4 x 6.
COLUMN = {
    (3, True): [0.428571429, 4.444444444, 13.0],
    (3, False): [0.333333333, 4.0, 13.666666667],
    (7, True): [0.0, 0.571428571, 1.857142857, 4.0, 7.571428571, 12.0, 16.0],
    (7, False): [0.0, 0.571428571, 1.857142857, 4.0, 7.571428571, 12.0, 16.0],
}
MIDDLE_ROW = {
    True: [0.18360113, 0.2373451, 0.30014703, 0.36838374],
    False: [0.17911153, 0.23582231, 0.3010397, 0.37476371],
}


@pytest.mark.parametrize(("target", "antialias"), COLUMN)
def test_weights_of_one_axis(target, antialias):
    resized = bilinear_weights(5, target, antialias) @ np.array([0, 1, 4, 9, 16], np.float32)
    np.testing.assert_allclose(resized, COLUMN[target, antialias], atol=2e-6)


@pytest.mark.parametrize("antialias", [True, False])
def test_weights_of_two_axes(antialias):
    grid = (np.arange(24) ** 2 / 529).reshape(4, 6)
    resized = bilinear_weights(4, 3, antialias) @ grid @ bilinear_weights(6, 4, antialias).T
    np.testing.assert_allclose(resized[1], MIDDLE_ROW[antialias], atol=1e-6)


def test_resizing_reproduces_the_published_application():
    golden = np.load(GOLDEN / "pipeline_gradio.npz")
    image = golden["image_first"].astype(np.float32) / 255 * 2 - 1
    # The reference computes positions in float32, which moves steep edges by up to 8e-6.
    resized = resize_tensor_like_app(image, 64, 128).transpose(2, 0, 1)
    np.testing.assert_allclose(resized, golden["resized_first"], atol=1e-5)
    without = resize_tensor_like_app(image, 64, 128, antialias=False).transpose(2, 0, 1)[:, ::2, ::2]
    np.testing.assert_allclose(without, golden["resized_first_without_antialias"], atol=2e-5)
    assert np.abs(resized[:, ::2, ::2] - without).max() > 0.05


def test_application_pads_with_grey():
    resized = resize_tensor_like_app(np.ones((64, 101, 2), np.float32), 64, 128)
    assert (resized[:, :13] == 0).all() and (resized[:, 114:] == 0).all() and (resized[:, 13:114] == 1).all()


# --- sketches ---


def test_grey_of_primaries_and_neutrals():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0], [255, 255, 255], [77, 77, 77]]], np.uint8)
    # 0.299, 0.587 and 0.114 of 255, rounded; neutral colours are kept exactly.
    assert grey_of_rgb(colours).tolist() == [[76, 150, 29, 0, 255, 77]]


def test_hint_reproduces_the_published_sketch_input():
    guides = np.load(GOLDEN / "pipeline_sketch_guides.npz")["guides_bgr"]
    expected = np.load(GOLDEN / "pipeline_sketch.npz")["hint_frame_0_1_3"]
    for frame, hint in zip((0, 1, 3), expected, strict=True):
        rgb = np.ascontiguousarray(guides[frame][..., ::-1])
        np.testing.assert_allclose(sketch_to_hint(rgb, 64, 128), hint.transpose(1, 2, 0), atol=1e-5)
    assert expected.max() > 0.9


def test_hint_polarity_and_range():
    lines = np.full((96, 176), 255, np.uint8)
    lines[40:44] = 0
    hint = sketch_to_hint(lines, 64, 128)
    assert hint.shape == (64, 128, 1) and hint.dtype == np.float32 and hint.min() == 0 and 0.9 < hint.max() <= 1
    np.testing.assert_array_equal(sketch_to_hint(255 - lines, 64, 128, dark_lines=False), hint)
    np.testing.assert_array_equal(sketch_to_hint(np.repeat(lines[..., None], 3, axis=-1), 64, 128), hint)
    assert (sketch_to_hint(np.full((96, 176), 255, np.uint8), 64, 128) == 0).all()
    with pytest.raises(UserError, match=r"or \(height, width\), not float64"):
        inspect.unwrap(sketch_to_hint)(lines / 255, 64, 128)


def test_unreadable_bytes_never_show_a_decoder_error(tmp_path):
    # Every single-byte damage of a small file either still decodes or is refused in words.
    buffer = io.BytesIO()
    Image.fromarray(drawing(16, 16)).save(buffer, "PNG")
    data, refused = buffer.getvalue(), 0
    for position in range(len(data)):
        (tmp_path / "a.png").write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        try:
            read_image(tmp_path / "a.png")
        except UserError:
            refused += 1
    assert refused > len(data) / 2
