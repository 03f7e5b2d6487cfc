"""Pictures in and out: any photo a user has (EXIF, CMYK, grey, alpha, animated, huge) -> RGB square."""

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from skipmodal.errors import UserError
from skipmodal.files import write_atomic

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 200_000_000  # of a JPEG, which is decoded at a fraction; telephones reach 199.9 million
MAX_DECODED = 64_000_000  # of the others, which take up to 20 bytes a pixel while they are decoded
MAX_AT_ONCE = 16_000_000  # beyond that, one after the other: a thread each would need so much for each
# What is read, of all that Pillow knows; to read EPS, say, it runs another program.
READ = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "DDS")
if Image.MAX_IMAGE_PIXELS is not None:  # Pillow itself refuses beyond twice this
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MAX_PIXELS // 2)
_large = threading.Lock()
LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
ALL_LITES = "efficientnet_lites"  # the three together
EncoderName = Literal["none", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "efficientnet_lites"]
# Pixels a side of what each sees.
ENCODER_SIDES = {"efficientnet_lite0": 224, "efficientnet_lite1": 256, "efficientnet_lite2": 288, ALL_LITES: 288}
FEATURE_STRIDE, FEATURE_WIDTH = 32, 1280  # of their grids
MAX_VIEWS = 16  # of a picture, to train on
LEAST_SHOWN = 0.7  # of each side of a picture, by a view of it
POOLED = 7  # places a side of each grid, where there are three
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class ImageConfig(BaseModel):
    """How a picture becomes an array; stored in datasets and checkpoints."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: Annotated[int, Field(ge=16, le=1024, description="pixels a side; all is kept, squeezed")] = 128
    encoder: Annotated[
        EncoderName | Literal["regions"],
        Field(description="frozen image encoder whose features are cached; regions: they come from a file"),
    ] = "none"
    regions: Annotated[
        tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=4096)]] | None,
        Field(description="the most regions of a picture, and the width of their features"),
    ] = None

    @property
    def input_size(self) -> int:
        """Pixels a side of what the image encoder sees; `size` is what the image decoder draws."""
        return ENCODER_SIDES.get(self.encoder, self.size)

    @property
    def cached(self) -> tuple[int, int] | None:
        """Places of a picture and the width of their features, where they are cached."""
        if self.encoder == "none":
            return None
        if self.encoder == ALL_LITES:
            return len(LITES) * POOLED**2, FEATURE_WIDTH
        return self.regions or ((self.input_size // FEATURE_STRIDE) ** 2, FEATURE_WIDTH)

    @model_validator(mode="after")
    def _regions_have_a_shape(self) -> "ImageConfig":
        if (self.regions is not None) != (self.encoder == "regions"):
            raise ValueError("regions: goes with the encoder of that name, and with no other")
        return self

    @field_validator("size")
    @classmethod
    def power_of_two(cls, size: int) -> int:
        """The size; raises ValueError where it is none that the image decoder can draw."""
        if size & (size - 1):
            raise ValueError("must be a power of two, since the image decoder doubles")
        return size


def read_image(source: Path | bytes, config: ImageConfig) -> np.ndarray:
    """RGB uint8 of shape (input_size, input_size, 3); `source` is a file or its bytes.

    The first frame of an animation is taken, transparency lies on white, EXIF rotation is applied.
    Raises UserError for what is unreadable, truncated, of no format in READ, or larger than MAX_PIXELS or MAX_DECODED.
    """
    side = config.input_size
    return _read(source, side, lambda image: _square(image, side))


def read_views(source: Path, config: ImageConfig, count: int, seed: int) -> np.ndarray:
    """The picture as `read_image` gives it, then `count` views of it, (1 + count, input_size, input_size, 3).

    A view is a part, LEAST_SHOWN to all of each side, every second one mirrored; `seed` says which parts.
    Raises UserError as `read_image` does.
    """
    side, rng = config.input_size, np.random.default_rng(seed)

    def views(image: Image.Image) -> np.ndarray:
        shown = [_square(image, side)]
        for number in range(count):
            width, height = rng.uniform(LEAST_SHOWN, 1, 2) * image.size
            left, top = rng.uniform(size=2) * (image.width - width, image.height - height)
            part = _square(image, side, (left, top, left + width, top + height))
            shown.append(ImageOps.mirror(part) if number % 2 == 0 else part)
        return np.stack([np.asarray(each) for each in shown])

    return _read(source, side, views)


def shape_image(image: Image.Image, config: ImageConfig) -> np.ndarray:
    """The same of a picture that Pillow has opened. Raises UserError as `read_image` does."""
    if image.width * image.height > MAX_DECODED:
        raise UserError(f"a picture of more than {MAX_DECODED:,} pixels; scale it down first")
    try:
        # The caller's picture stays as it is.
        return np.asarray(_square(_upright(ImageOps.exif_transpose(image)), config.input_size))
    except Exception as error:  # decoders fail in many ways
        raise UserError(f"the picture cannot be read ({error})") from error


def read_photo(source: Path | bytes, longest: int) -> np.ndarray:
    """RGB uint8 (H, W, 3) to be shown to people: as `read_image`, but in its own shape, `longest` pixels at most."""

    def fit(image: Image.Image) -> Image.Image:
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        return image

    return _read(source, longest, fit)


def check_picture(path: Path) -> None:
    """Raises UserError for what `read_image` refuses without decoding it."""
    with _opened(path, 1):
        pass


def _read(source: Path | bytes, side: int, resize: Callable[[Image.Image], Image.Image | np.ndarray]) -> np.ndarray:
    with _opened(source, side) as image, _large if image.width * image.height > MAX_AT_ONCE else nullcontext():
        return np.asarray(resize(_upright(image)))


@contextmanager
def _opened(source: Path | bytes, side: int) -> Iterator[Image.Image]:
    """A picture whose header is harmless; what goes wrong while it is open is a UserError.

    A JPEG opens at a fraction of its size, at least twice `side`.
    """
    name = str(source) if isinstance(source, Path) else "image on stdin"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; our own bound decides
            with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=_formats()) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UserError(f"{name}: more than {MAX_PIXELS:,} pixels; scale it down first")
                if image.format in ("JPEG", "MPO") and not image.info.get("progressive"):
                    image.draft("RGB", (2 * side,) * 2)
                if image.width * image.height > MAX_DECODED:
                    advice = "scale it down first, or save it as a JPEG that is not progressive"
                    raise UserError(f"{name}: more than {MAX_DECODED:,} pixels; {advice}")
                yield image
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: more than {MAX_PIXELS:,} pixels; scale it down first") from error
    except UnidentifiedImageError as error:
        raise UserError(f"{name}: is not a picture of a known format") from error
    except UserError:
        raise
    except Exception as error:  # decoders fail in many ways
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{name}: cannot be read as a picture ({reason})") from error


@cache
def _formats() -> list[str]:
    """Those of READ that this Pillow has: an older one may have no AVIF."""
    Image.init()
    return [name for name in READ if name in Image.OPEN]


def write_image(target: Path | BinaryIO, pixels: np.ndarray) -> None:
    """Writes uint8 RGB (H, W, 3); a path's suffix picks png, jpg or webp, a stream gets png."""
    if isinstance(target, Path) and target.suffix.lower() not in FORMATS:
        raise UserError(f"{target}: unknown picture suffix; use {', '.join(FORMATS)}")
    buffer = io.BytesIO()
    container = FORMATS[target.suffix.lower()] if isinstance(target, Path) else "PNG"
    Image.fromarray(pixels).save(buffer, container)
    if isinstance(target, Path):
        write_atomic(target, buffer.getvalue())
    else:
        target.write(buffer.getvalue())


def to_tensor(pixels: np.ndarray) -> "torch.Tensor":
    """uint8 (..., H, W, 3) -> float32 (..., 3, H, W) in [-1, 1], the range of the image decoder's tanh."""
    import torch

    tensor = torch.from_numpy(np.array(pixels)).movedim(-1, -3)  # a copy: the source may be a read-only map
    return tensor.float().div_(127.5).sub_(1)


def to_pixels(tensor: "torch.Tensor") -> np.ndarray:
    """float (..., 3, H, W) in [-1, 1] -> uint8 (..., H, W, 3)."""
    scaled = tensor.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.byte().movedim(-3, -1).cpu().numpy()


def shrink(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 (S, S, 3) -> (size, size, 3)."""
    if len(pixels) == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS))


def _square(image: Image.Image, side: int, box: tuple[float, float, float, float] | None = None) -> Image.Image:
    return image.resize((side, side), Image.Resampling.LANCZOS, box, reducing_gap=3)


def _upright(image: Image.Image) -> Image.Image:
    """RGB, as it is meant to be seen; `image` itself is turned."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):  # no direct way to RGB, and no stated white
        values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0).clip(min=0)
        peak = float(values.max())
        white = next((white for white in (1, 255, 65535) if peak <= white), peak)
        image = Image.fromarray((values * (255 / white)).round().astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")
