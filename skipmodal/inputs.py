"""What users hand over, as the model takes it: files, bytes, PIL pictures, arrays and tensors of any size."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skipmodal.audio import MAX_INPUT_SECONDS, AudioConfig, finish, read_audio, resample
from skipmodal.errors import UserError
from skipmodal.image import ImageConfig, read_image, shape_image


def picture(item: Any, config: ImageConfig) -> np.ndarray:
    """RGB uint8 (input_size, input_size, 3).

    Arrays are (H, W), (H, W, 1 to 4) or, tensors too, (1 to 4, H, W): uint8, or floats from 0 to 1.
    Raises UserError for what is no picture, and where the model takes regions; TypeError for what is none of these.
    """
    if config.encoder == "regions":
        raise UserError("this model sees regions that a detector found, and can't find them in a photo")
    if isinstance(item, str | Path):
        return read_image(Path(item), config)
    if isinstance(item, bytes):
        return read_image(item, config)
    if isinstance(item, Image.Image):
        return shape_image(item, config)
    array = _array(item)
    if array is None:
        raise TypeError(f"a picture is a file, bytes, a PIL image, an array or a tensor, not {type(item).__name__}")
    if array.ndim == 3 and array.shape[2] > 4 and array.shape[0] <= 4:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    what = f"{array.dtype} {array.shape}"
    if array.ndim not in (2, 3) or not array.size or (array.ndim == 3 and not 2 <= array.shape[2] <= 4):
        raise UserError(f"a picture's array is (H, W), (H, W, channels) or (channels, H, W), not {what}")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise UserError(f"a picture's floats lie between 0 and 1, these do not ({what})")
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise UserError(f"a picture's array is uint8 or floats, not {what}")
    return shape_image(Image.fromarray(np.ascontiguousarray(array)), config)


def waveform(item: Any, config: AudioConfig, max_seconds: float = MAX_INPUT_SECONDS) -> np.ndarray:
    """Mono float32 (samples,) at the configuration's rate.

    An array or a tensor is (samples,), (channels, samples) or (samples, channels): floats, or integers of a recording's
    full scale; with a rate beside it, as (samples, Hz), it is resampled.
    Raises UserError for what is no recording, TypeError for what is none of these.
    """
    if isinstance(item, str | Path):
        return read_audio(Path(item), config.sample_rate, max_seconds)
    if isinstance(item, bytes):
        return read_audio(item, config.sample_rate, max_seconds)
    rate = config.sample_rate
    if isinstance(item, tuple) and len(item) == 2:
        item, rate = item
        if not isinstance(rate, int) or not 1000 <= rate <= 768_000:
            raise UserError(f"speech beside its rate is (samples, Hz), and {rate!r} is no rate")
    array = _array(item)
    if array is None:
        raise TypeError(f"speech is a file, bytes, an array or a tensor, not {type(item).__name__}")
    what = f"{array.dtype} {array.shape}"
    if np.issubdtype(array.dtype, np.signedinteger):
        array = array / -float(np.iinfo(array.dtype).min)
    if array.ndim == 2:
        array = array.mean(axis=int(np.argmin(array.shape)))
    if array.ndim != 1 or not array.size or not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"a recording's array is (samples,) of floats or signed integers, not {what}")
    if not np.isfinite(array).all():
        raise UserError("a recording's samples are finite numbers, and these are not")
    if len(array) > max_seconds * rate:
        raise UserError(f"{len(array) / rate:.1f} s of audio, the limit is {max_seconds:g} s; cut it first")
    return finish(resample(array.astype(np.float32), rate, config.sample_rate))


def _array(item: Any) -> np.ndarray | None:
    """Of an array or a tensor; None of anything else."""
    if hasattr(item, "detach"):
        item = item.detach().cpu().numpy()
    return item if isinstance(item, np.ndarray) else None


def is_batch(item: Any) -> bool:
    """Whether several items were given: a list, a tuple of items, or an iterator."""
    if isinstance(item, str | bytes | Path | np.ndarray | Image.Image | io.IOBase) or hasattr(item, "detach"):
        return False
    return not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], int)) and hasattr(item, "__iter__")
