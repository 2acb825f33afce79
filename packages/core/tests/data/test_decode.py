import io

import numpy as np
import pytest
import torch
from PIL import Image

from medbolt.core.data.decode import array_to_image, array_to_mask, decode_image, decode_mask


def encoded(image: Image.Image, kind: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def channels_last(image: torch.Tensor) -> np.ndarray:
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    return image.permute(1, 2, 0).numpy()


def test_rgb_is_kept():
    assert (channels_last(decode_image(encoded(Image.fromarray(RGB)))) == RGB).all()


def test_grey_is_repeated():
    assert (channels_last(decode_image(encoded(Image.fromarray(RGB[..., 0])))) == RGB[..., :1]).all()


def test_one_bit_is_black_and_white():
    bits = RGB[..., 0] > 127
    assert (channels_last(decode_image(encoded(Image.fromarray(bits)))) == 255 * bits[..., None]).all()


def test_palette_is_looked_up():
    image = Image.fromarray(RGB).quantize(256)
    assert (channels_last(decode_image(encoded(image))) == np.asarray(image.convert("RGB"))).all()


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    red = channels_last(decode_image(encoded(image, "TIFF")))
    assert (red == [255, 0, 0]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_over_black(mode):
    grey = np.full((2, 2), 200, dtype=np.uint8)
    alpha = np.array([[255, 0], [128, 255]], dtype=np.uint8)
    image = Image.fromarray(np.stack([grey] * (3 if mode == "RGBA" else 1) + [alpha], axis=-1))
    assert image.mode == mode
    assert channels_last(decode_image(encoded(image)))[..., 0].tolist() == [[200, 0], [100, 200]]


def test_a_transparent_palette_colour_is_black():
    image = Image.new("P", (2, 1), 1)
    image.putpalette([0, 0, 0, 250, 250, 250])
    image.putpixel((0, 0), 0)
    assert decode_image(encoded(image, transparency=1)).max() == 0


@pytest.mark.parametrize(("largest", "depth"), [(255, 8), (256, 10), (1023, 10), (4095, 12), (16000, 14), (65535, 16)])
def test_sixteen_bit_is_scaled_by_the_depth_that_its_values_need(largest, depth):
    values = np.linspace(0, largest, 12).astype(np.uint16).reshape(3, 4)
    image = decode_image(encoded(Image.fromarray(values)))
    assert (image[0].numpy() == np.rint(values * 255.0 / (2**depth - 1))).all()


def test_exif_orientation_is_honoured():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    image = Image.fromarray(np.zeros((20, 40, 3), dtype=np.uint8))
    image.paste((255, 255, 255), (0, 0, 20, 20))
    upright = decode_image(encoded(image, "JPEG", exif=exif, quality=95))
    assert upright.shape == (3, 40, 20)
    assert upright[:, 5, 10].min() > 250
    assert upright[:, 35, 10].max() < 5


def test_floating_point_tiff():
    values = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert decode_image(encoded(Image.fromarray(values), "TIFF"))[0].tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("content", [b"", b"no image at all", encoded(Image.fromarray(RGB)).getvalue()[:60]])
def test_what_is_no_image_is_told(content):
    with pytest.raises(ValueError, match="is truncated, corrupt or no image; replace it"):
        decode_image(io.BytesIO(content))


def test_an_image_above_the_limit_of_pillow_is_not_called_corrupt(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 17)
    with pytest.raises(ValueError, match="^has more pixels than the 34 that are read; save it smaller or in parts$"):
        decode_image(encoded(Image.fromarray(RGB)))


def test_a_truncated_jpeg_is_told():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(picture, "JPEG").getvalue()
    with pytest.raises(ValueError, match="truncated"):
        decode_image(io.BytesIO(content[: len(content) // 2]))


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 5, 7), (5, 7, 1), (5, 7)])
def test_arrays_of_any_layout(shape):
    image = array_to_image(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape))
    assert image[0].flatten().tolist() == list(range(35))
    assert image[2, 0, 0] == (70 if shape[0] == 3 else 0)


def test_a_boolean_array_is_black_and_white():
    assert array_to_image(np.array([[True, False]]))[0].tolist() == [[255, 0]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0.0, np.nan]]), "NaN or infinite pixels; repair it"),
        (np.array([[0.0, np.inf]]), "NaN or infinite"),
        (np.array([[0.0, 255.0]]), r"values from 0 to 255; scale floating-point images to \[0, 1\]"),
        (np.array([[-1, 3]]), "values from -1 to 3; whole numbers must lie in 0 to 65535"),
        (np.array([[0, 70000]]), "values from 0 to 70000"),
        (np.array([["a", "b"]]), "instead of numbers"),
        (np.zeros((5, 4, 2), dtype=np.uint8), r"has shape \(5, 4, 2\)"),
        (np.zeros((0, 4), dtype=np.uint8), r"has shape \(0, 4\)"),
    ],
)
def test_arrays_that_are_no_images(array, message):
    with pytest.raises(ValueError, match=message):
        array_to_image(array)


def test_binary_masks_become_zero_and_one():
    bits = np.array([[True, False], [False, True]])
    assert decode_mask(encoded(Image.fromarray(bits))).tolist() == [[1, 0], [0, 1]]
    assert decode_mask(encoded(Image.fromarray(bits.astype(np.uint8) * 255))).tolist() == [[1, 0], [0, 1]]


def test_class_masks_keep_their_indices():
    classes = np.array([[0, 1, 2], [7, 255, 3]], dtype=np.uint8)
    assert decode_mask(encoded(Image.fromarray(classes))).tolist() == classes.tolist()
    palette = Image.new("P", (2, 1), 3)
    palette.putpalette([0] * 768)
    assert decode_mask(encoded(palette)).tolist() == [[3, 3]]


def test_a_grey_mask_with_colour_channels():
    classes = np.array([[0, 2]], dtype=np.uint8)
    assert decode_mask(encoded(Image.fromarray(np.stack([classes] * 3, axis=-1)))).tolist() == [[0, 2]]
    with pytest.raises(ValueError, match="is a coloured mask"):
        decode_mask(encoded(Image.fromarray(RGB)))


def test_masks_of_several_raters_keep_their_axis():
    assert array_to_mask(np.zeros((4, 6, 6), dtype=np.uint8)).shape == (4, 6, 6)
    assert array_to_mask(np.ones((6, 6, 1))).shape == (6, 6)


@pytest.mark.parametrize("values", [[[0.5]], [[-1]], [[300]], [[float("nan")]]])
def test_arrays_that_are_no_masks(values):
    with pytest.raises(ValueError, match="no whole numbers from 0 to 255"):
        array_to_mask(np.array(values))
