import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from src.data.preparation.labels import LabelRules, explain_ids, read_label
from src.utils.errors import UserError
from src.utils.palette import voc_palette

IDS = np.array([[0, 9, 12], [20, 255, 1]], np.uint8)


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def palette_image(ids):
    image = Image.fromarray(ids)
    image.putpalette(voc_palette().ravel().tolist())
    return image


def test_palette_images_give_indices_not_luminance(tmp_path):
    palette_image(IDS).save(tmp_path / "a.png")
    ids = read_label(tmp_path / "a.png")
    assert ids.dtype == np.uint8 and ids.tolist() == IDS.tolist()
    grey = np.array(Image.open(tmp_path / "a.png").convert("L"))
    assert grey[0].tolist() == [0, 57, 34]  # what the tutorial's reading makes of it


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "pgm"])
def test_grey_images_give_their_values(tmp_path, suffix):
    assert read_label(save(tmp_path / f"a.{suffix}", IDS)).tolist() == IDS.tolist()


@pytest.mark.parametrize(
    "bits, ids", [(1, [[0, 1]]), (2, [[0, 1], [3, 2]]), (4, [[0, 7], [15, 1]])]
)
def test_palette_images_of_few_bits_keep_their_ids(tmp_path, bits, ids):
    image = palette_image(np.array(ids, np.uint8))
    image.save(tmp_path / "a.png", bits=bits)
    assert read_label(tmp_path / "a.png").tolist() == ids


@pytest.mark.parametrize("bits, ids", [(2, [0, 1, 2, 3]), (4, [0, 1, 7, 15])])
def test_grey_images_of_few_bits_keep_their_ids(tmp_path, bits, ids):
    packed = 0
    for value in ids:
        packed = packed << bits | value
    write_grey_png(tmp_path / "a.png", bits, len(ids), packed.to_bytes(bits * len(ids) // 8, "big"))
    assert read_label(tmp_path / "a.png").tolist() == [ids]


def write_grey_png(path, bits, width, row):
    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, 1, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_colours_are_read_through_vocs_palette_by_default(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", voc_palette()[IDS], **options)
    assert read_label(path, num_classes=21).tolist() == IDS.tolist()
    assert read_label(path, num_classes=21, ignore_index=100).tolist() == [[0, 9, 12], [20, 100, 1]]


def test_colours_are_read_through_the_given_palette_whose_last_rows_are_void(tmp_path):
    palette = np.array([[9, 9, 9], [10, 0, 0], [0, 0, 0]], np.uint8)
    path = save(tmp_path / "a.png", palette[[[0, 1], [2, 1]]])
    assert read_label(path, palette, num_classes=2).tolist() == [[0, 1], [255, 1]]
    assert read_label(path, palette).tolist() == [[0, 1], [2, 1]]


def test_an_opaque_alpha_channel_does_not_matter(tmp_path):
    colors = voc_palette()[IDS]
    path = save(tmp_path / "a.png", np.dstack([colors, np.full((2, 3), 255, np.uint8)]))
    assert read_label(path).tolist() == IDS.tolist()
    path = save(tmp_path / "b.png", np.dstack([colors, np.zeros((2, 3), np.uint8)]))
    with pytest.raises(UserError, match=r"b\.png: .*transparent"):
        read_label(path)


def test_an_unknown_colour_is_named_with_its_place(tmp_path):
    colors = voc_palette()[IDS]
    colors[0, 2] = (1, 2, 3)
    colors[1, 1] = (1, 2, 4)
    path = save(tmp_path / "a.png", colors)
    with pytest.raises(UserError) as error:
        read_label(path, num_classes=21)
    text = str(error.value)
    assert f"{path}: colour (1, 2, 3) at row 0, column 2 belongs to no class" in text
    assert "(2 of 6 pixels, 2 such colours)" in text and "dataset.source.palette" in text


def test_a_class_colour_beyond_num_classes_is_unknown(tmp_path):
    path = save(tmp_path / "a.png", voc_palette()[IDS])
    with pytest.raises(UserError, match=r"at row 1, column 0 belongs to no class \(1 of 6"):
        read_label(path, num_classes=20)


def test_void_ids_become_ignore_index(tmp_path):
    path = save(tmp_path / "a.png", IDS)
    assert read_label(path, void_ids=[12, 20]).tolist() == [[0, 9, 255], [255, 255, 1]]


def sbd_file(path, ids, key="GTcls"):
    savemat(path, {key: {"Boundaries": np.zeros(20), "Segmentation": ids}})
    return path


def test_mat_files_of_sbd_give_their_segmentation(tmp_path):
    ids = read_label(sbd_file(tmp_path / "a.mat", IDS))
    assert ids.dtype == np.uint8 and ids.tolist() == IDS.tolist()


@pytest.mark.parametrize("content", ["other key", "damaged", "missing"])
def test_other_mat_files_are_refused(tmp_path, content):
    path = tmp_path / "a.mat"
    if content == "other key":
        sbd_file(path, IDS, "GTinst")
    elif content == "damaged":
        path.write_bytes(b"MATLAB 5.0 nothing of the kind" * 9)
    with pytest.raises(
        UserError, match=r"a\.mat: no (GTcls\.Segmentation|such label file)"
    ) as error:
        read_label(path)
    assert "\n" not in str(error.value)


def test_images_of_other_modes_are_refused_with_the_remedy(tmp_path):
    path = save(tmp_path / "a.png", IDS.astype(np.uint16))
    with pytest.raises(UserError, match=r"a\.png: label image of mode I;?\d*; .*8-bit grey PNG"):
        read_label(path)


def test_a_jpeg_cannot_be_a_label(tmp_path):
    path = save(tmp_path / "a.jpg", IDS)
    with pytest.raises(UserError, match=r"a\.jpg: a JPEG cannot hold labels"):
        read_label(path)


def test_a_damaged_file_is_named(tmp_path):
    whole = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:500])
    (tmp_path / "text.png").write_text("no image")
    for name in ("cut.png", "text.png"):
        with pytest.raises(UserError, match=f"{name}: cannot be decoded") as error:
            read_label(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such label file"):
        read_label(tmp_path / "absent.png")


def test_grey_values_of_the_voc_colours_are_recognised():
    assert "converted to greyscale" in explain_bad_ids([33, 57, 220])
    assert "converted to greyscale" in explain_bad_ids(np.array([34, 38, 75, 220]))
    assert explain_bad_ids([33, 57, 99, 100, 101]) == ""


def test_a_single_bad_id_may_be_void():
    assert "dataset.source.void_ids=[11]" in explain_bad_ids([11])
    assert explain_bad_ids([]) == ""
