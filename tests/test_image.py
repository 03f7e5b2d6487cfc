import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from skipmodal import image
from skipmodal.errors import UserError
from skipmodal.image import ImageConfig, read_image, read_photo, read_views, to_pixels, to_tensor, write_image

SMALL = ImageConfig(size=16)


def quarters(mode="RGB", size=(32, 24)):
    """Red, green / blue, grey: tells turned, mirrored and colour-swapped pictures apart."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (200, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 200, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 200)
    pixels[height // 2 :, width // 2 :] = (128, 128, 128)
    return Image.fromarray(pixels).convert(mode)


def encoded(picture, container="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, container, **options)
    return buffer.getvalue()


def corners(pixels):
    """Colours in the middle of the four quarters, rows first."""
    near, far = len(pixels) // 4, 3 * len(pixels) // 4
    return [pixels[y, x].tolist() for y in (near, far) for x in (near, far)]


COLOURS = [[200, 0, 0], [0, 200, 0], [0, 0, 200], [128, 128, 128]]
WHITE = [255, 255, 255]


def assert_close(colours, expected, tolerance):
    np.testing.assert_allclose(np.array(colours, float), np.array(expected, float), atol=tolerance)


# Reading


@pytest.mark.parametrize(
    ("container", "options", "tolerance"),
    [
        ("PNG", {}, 0), ("BMP", {}, 0), ("TIFF", {}, 0), ("PPM", {}, 0), ("GIF", {}, 5),
        ("WEBP", {"lossless": True}, 0), ("PNG", {"interlace": 1}, 0),
        ("JPEG", {"quality": 95}, 6), ("JPEG", {"progressive": True, "quality": 95}, 6),
    ],
    ids=str,
)  # fmt: skip
def test_formats(container, options, tolerance, tmp_path):
    data = encoded(quarters(), container, **options)
    pixels = read_image(data, SMALL)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    assert_close(corners(pixels), COLOURS, tolerance)
    (tmp_path / "no suffix").write_bytes(data)
    assert np.array_equal(read_image(tmp_path / "no suffix", SMALL), pixels)


def test_colour_modes():
    for mode, container, tolerance in (
        ("CMYK", "JPEG", 8),
        ("CMYK", "TIFF", 1),
        ("P", "PNG", 10),
    ):
        assert_close(corners(read_image(encoded(quarters(mode), container), SMALL)), COLOURS, tolerance)
    assert_close(corners(read_image(encoded(quarters("LAB"), "TIFF"), SMALL)), COLOURS, 30)


def test_grey_modes():
    luma = [[60] * 3, [117] * 3, [23] * 3, [128] * 3]  # 0.299 R + 0.587 G + 0.114 B
    assert_close(corners(read_image(encoded(quarters("L")), SMALL)), luma, 1)
    assert_close(corners(read_image(encoded(quarters("L"), "JPEG", quality=95), SMALL)), luma, 4)
    one_bit = Image.fromarray(np.repeat([[0, 255]], 8, axis=0).astype(np.uint8).repeat(4, axis=1)).convert("1")
    assert_close(corners(read_image(encoded(one_bit), SMALL)), [[0] * 3, WHITE] * 2, 10)


@pytest.mark.parametrize(
    ("dtype", "container", "white"),
    [
        (np.uint16, "PNG", 65535), (np.uint16, "TIFF", 65535), (">u2", "TIFF", 65535),
        (np.int32, "TIFF", 65535), (np.uint16, "PNG", 255),
        (np.float32, "TIFF", 255), (np.float32, "TIFF", 1),
    ],
)  # fmt: skip
def test_deep_grey_is_scaled_by_its_white_not_by_its_brightest_pixel(dtype, container, white):
    values = np.full((8, 8), 0.25)
    values[0, 0] = 0.75  # the brightest
    picture = Image.fromarray((values * white).astype(dtype))
    assert picture.mode in ("I", "F") or picture.mode.startswith("I;16")
    assert_close(read_image(encoded(picture, container), SMALL)[8:, 8:], np.full((8, 8, 3), 64), 1)


def test_deep_grey_of_unknown_white_is_scaled_by_its_brightest_pixel():
    picture = Image.fromarray(np.float32([[2.5e5, 1e6]]).repeat(8, axis=0).repeat(8, axis=1))
    assert_close(corners(read_image(encoded(picture, "TIFF"), SMALL)), [[64] * 3, WHITE] * 2, 8)


def test_floats_that_are_no_numbers_are_black():
    picture = Image.fromarray(np.float32([[np.nan, 1.0], [np.inf, -1.0]]).repeat(8, axis=0).repeat(8, axis=1))
    black = [0] * 3
    assert_close(corners(read_image(encoded(picture, "TIFF"), SMALL)), [black, WHITE, black, black], 1)


def transparent(mode):
    """Left half of the picture is transparent, whatever colour hides there."""
    rgba = quarters("RGBA")
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[:, :16] = 0
    rgba.putalpha(Image.fromarray(alpha))
    return rgba.convert(mode)


def test_transparency_lies_on_white():
    expected = [WHITE, COLOURS[1], WHITE, COLOURS[3]]
    for container in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if container == "WEBP" else {}
        assert_close(corners(read_image(encoded(transparent("RGBA"), container, **options), SMALL)), expected, 1)
    grey = [WHITE, [117] * 3, WHITE, [128] * 3]
    assert_close(corners(read_image(encoded(transparent("LA")), SMALL)), grey, 1)
    palette = quarters("P")
    red = palette.getpixel((0, 0))
    keyed = [WHITE, *COLOURS[1:]]
    assert_close(corners(read_image(encoded(palette, transparency=red), SMALL)), keyed, 10)
    assert_close(corners(read_image(encoded(palette, "GIF", transparency=red), SMALL)), keyed, 10)
    assert_close(corners(read_image(encoded(quarters(), transparency=(200, 0, 0)), SMALL)), keyed, 1)


def test_half_transparent_is_half_white():
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert_close(read_image(encoded(half), SMALL)[8, 8], [127] * 3, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    undo = [
        None, None, "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM",
        "TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270",
    ][orientation]  # fmt: skip
    stored = quarters() if undo is None else quarters().transpose(Image.Transpose[undo])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for container, options, tolerance in (("JPEG", {"quality": 95}, 8), ("PNG", {}, 0)):
        pixels = read_image(encoded(stored, container, exif=exif, **options), SMALL)
        assert_close(corners(pixels), COLOURS, tolerance)


@pytest.mark.parametrize("container", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(container):
    options = {"lossless": True} if container == "WEBP" else {}
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("black", "white")]
    data = encoded(quarters(), container, save_all=True, append_images=frames, duration=100, **options)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.n_frames == 3
    assert_close(corners(read_image(data, SMALL)), COLOURS, 5)


def test_the_whole_picture_is_kept_whatever_its_shape():
    for size in ((400, 8), (8, 400), (2, 2), (3000, 2000)):
        pixels = read_image(encoded(quarters(size=size)), SMALL)
        assert_close(corners(pixels), COLOURS, 40 if size == (2, 2) else 8)
    assert read_image(encoded(Image.new("RGB", (1, 1), "red")), SMALL).tolist() == [[[255, 0, 0]] * 16] * 16
    assert read_image(encoded(quarters()), ImageConfig()).shape == (128, 128, 3)


def test_views_are_parts_and_every_second_is_mirrored(tmp_path):
    # Red grows to the right, green downwards: the corners of a view tell where it lies.
    x, y = np.meshgrid(np.arange(300), np.arange(200))
    ramp = np.stack([x * 255 / 299, y * 255 / 199, 0 * x], 2).round().astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    picture, *views = read_views(tmp_path / "ramp.png", SMALL, 40, seed=1)
    assert (picture == read_image(tmp_path / "ramp.png", SMALL)).all()
    spans = []
    for number, view in enumerate(views):
        red, green = view[8, :, 0].astype(float), view[:, 8, 1].astype(float)
        assert (np.diff(red) * (-1 if number % 2 == 0 else 1) > 0).all() and (np.diff(green) > 0).all()
        spans += [abs(red[-1] - red[0]) / 255 * 16 / 15, (green[-1] - green[0]) / 255 * 16 / 15]
    assert 0.68 < min(spans) < 0.8 and 0.9 < max(spans) < 1.02
    assert len({view.tobytes() for view in views}) == 40
    again = read_views(tmp_path / "ramp.png", SMALL, 40, seed=1)
    assert (again[1:] == views).all()
    assert (read_views(tmp_path / "ramp.png", SMALL, 40, seed=2)[1:] != views).any()


def test_a_large_jpeg_reduced_while_decoding_looks_the_same():
    rng = np.random.default_rng(0)
    blobs = Image.fromarray(rng.integers(0, 255, (9, 12, 3), np.uint8)).resize((1200, 900), Image.Resampling.BICUBIC)
    full = np.asarray(blobs.resize((16, 16), Image.Resampling.LANCZOS), float)
    assert np.abs(read_image(encoded(blobs, "JPEG", quality=95), SMALL) - full).mean() < 2


# What is refused


def forged_png(width, height):
    """A header of any size before a few bytes of data."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(bytes(99))),
            chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize("size", [(20_000, 10_001), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_a_huge_picture_is_refused_before_it_is_decoded(size, monkeypatch):
    monkeypatch.setattr(image, "_upright", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(UserError, match="image on stdin: more than 200,000,000 pixels; scale it down first"):
        read_image(forged_png(*size), SMALL)


def test_our_limit_holds_where_pillows_is_switched_off(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(image, "_upright", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(UserError, match="more than 200,000,000 pixels"):
        read_image(forged_png(20_000, 10_001), SMALL)


def claiming(jpeg, width, height):
    """The same JPEG, said to be of another size."""
    at = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2"))
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def test_the_largest_telephone_picture_is_let_through_and_decoded_at_a_fraction(monkeypatch, recwarn):
    seen = []
    monkeypatch.setattr(image, "_upright", lambda opened: seen.append(opened.size) or Image.new("RGB", (9, 9)))
    data = claiming(encoded(quarters(), "JPEG"), 16_320, 12_240)
    assert read_image(data, SMALL).shape == (16, 16, 3)
    assert seen == [(2040, 1530)]
    assert not recwarn.list


def test_what_is_decoded_whole_is_refused_earlier(monkeypatch):
    monkeypatch.setattr(image, "_upright", lambda *_: pytest.fail("was decoded"))
    progressive = claiming(encoded(quarters(), "JPEG", progressive=True), 8001, 8001)
    for data in (forged_png(8001, 8001), progressive):
        with pytest.raises(UserError, match="more than 64,000,000 pixels; scale it down first, or save it as a JPEG"):
            read_image(data, SMALL)


def test_large_pictures_are_decoded_one_after_the_other(monkeypatch):
    monkeypatch.setattr(image, "MAX_AT_ONCE", 32 * 24 - 1)
    monkeypatch.setattr(image, "_upright", lambda opened: opened if image._large.locked() else pytest.fail("unlocked"))
    assert read_image(encoded(quarters()), SMALL).shape == (16, 16, 3)
    assert not image._large.locked()


def test_no_other_program_is_run_on_a_picture(tmp_path, monkeypatch):
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / 'trace'}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    with pytest.raises(UserError, match="is not a picture of a known format"):
        read_image(encoded(quarters(), "EPS"), SMALL)
    assert not (tmp_path / "trace").exists()


DDS = encoded(quarters(), "DDS")
JPEG = encoded(quarters(size=(640, 480)), "JPEG", quality=95)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is not a picture"),
        (b"just a line of text\n" * 50, "is not a picture"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (encoded(quarters(size=(640, 480)))[:200], "cannot be read as a picture"),
        (forged_png(64, 64), "cannot be read as a picture"),
        (JPEG[:20], "picture"),
        (DDS[:80] + bytes(4) + DDS[84:], "cannot be read as a picture"),
    ],
    ids=["empty", "text", "half a jpeg", "half a png", "missing rows", "header", "no pixel format"],
)
def test_what_is_no_picture_is_one_line(data, words, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(data)
    for source, name in ((data, "image on stdin"), (path, str(path))):
        with pytest.raises(UserError, match=words) as caught:
            read_image(source, SMALL)
        assert str(caught.value).startswith(f"{name}: ")
        assert "\n" not in str(caught.value)
        assert " object at 0x" not in str(caught.value)


def test_paths_that_are_no_picture(tmp_path):
    with pytest.raises(UserError, match=r"missing\.png: cannot be read as a picture \(No such file"):
        read_image(tmp_path / "missing.png", SMALL)
    with pytest.raises(UserError, match="directory"):
        read_image(tmp_path, SMALL)


@pytest.mark.parametrize(
    "container", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG", "DDS", "ICO", "TGA", "AVIF", "JPEG2000"]
)
def test_damaged_files_are_read_or_refused(container, capfd):
    rng = np.random.default_rng(0)
    good = encoded(quarters(), container)
    refused = 0
    for _ in range(60):
        data = bytearray(good)
        for position in rng.integers(0, min(len(data), 150), size=3):
            data[position] = rng.integers(256)
        try:
            assert read_image(bytes(data), SMALL).shape == (16, 16, 3)
        except UserError:
            refused += 1
    assert refused


@pytest.mark.parametrize("size", [0, 15, 1025, 1 << 40, "big", None])
def test_sizes_that_make_no_sense_are_refused(size):
    with pytest.raises(ValidationError):
        ImageConfig(size=size)


# Tensors


def test_tensor_round_trip_is_exact_for_every_value():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, 16, 16)
    assert tensor.dtype == torch.float32
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert np.array_equal(to_pixels(tensor), pixels)
    assert np.array_equal(to_pixels(tensor[0]), pixels[0])


@pytest.mark.filterwarnings("error")
def test_channels_move_and_the_source_stays():
    pixels = read_image(encoded(quarters()), SMALL).copy()
    pixels.flags.writeable = False  # a memory map is read-only
    before = pixels.copy()
    tensor = to_tensor(pixels)
    assert tensor[:, 4, 4].tolist() == pytest.approx([200 / 127.5 - 1, -1, -1])
    tensor.zero_()
    assert np.array_equal(pixels, before)


def test_what_a_decoder_says_is_rounded_and_clamped():
    said = torch.tensor([-7.0, -1.0, 0.0, 0.0035, 0.0045, 1.0, 9.0]).expand(3, 1, 7).requires_grad_()
    assert to_pixels(said)[0, :, 0].tolist() == [0, 0, 128, 128, 128, 255, 255]
    assert to_pixels(said.detach().half()).shape == (1, 7, 3)


# Writing


@pytest.mark.parametrize(
    ("suffix", "tolerance"), [(".png", 0), (".jpg", 12), (".jpeg", 12), (".webp", 12), (".PNG", 0)]
)
def test_written_files_read_back(suffix, tolerance, tmp_path):
    pixels = read_image(encoded(quarters()), ImageConfig(size=64))
    path = tmp_path / f"x{suffix}"
    write_image(path, pixels)
    with Image.open(path) as written:
        assert written.format == image.FORMATS[suffix.lower()]
    assert_close(corners(read_image(path, ImageConfig(size=64))), COLOURS, tolerance)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_stream_gets_png():
    pixels = read_image(encoded(quarters()), SMALL)
    stream = io.BytesIO()
    write_image(stream, pixels)
    assert np.array_equal(np.asarray(Image.open(stream, formats=["PNG"])), pixels)


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"old")

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"x\.png: cannot be written \(No space left on device\)"):
        write_image(tmp_path / "x.png", np.zeros((4, 4, 3), np.uint8))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x.png": b"old"}


def test_targets_that_cannot_be_written(tmp_path):
    black = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UserError, match="cannot be written"):
        write_image(tmp_path / "missing" / "x.png", black)
    for name in ("x.bmp", "x", "x.png.txt"):
        with pytest.raises(UserError, match=r"unknown picture suffix; use \.png, \.jpg, \.jpeg, \.webp"):
            write_image(tmp_path / name, black)
    assert not list(tmp_path.iterdir())


def test_a_photo_to_be_shown_keeps_its_shape_and_stands_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 10)).save(tmp_path / "x.jpg", exif=exif)
    assert read_photo(tmp_path / "x.jpg", 16).shape == (16, 4, 3)
    assert read_photo(tmp_path / "x.jpg", 100).shape == (40, 10, 3)  # not enlarged
