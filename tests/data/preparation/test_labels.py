import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from src.data.preparation.labels import LabelRules, explain_ids, ids_of_numbers, read_label
from src.data.preparation.problem import Problem
from src.utils.errors import UserError
from src.utils.palette import voc_palette

IDS = np.array([[0, 9, 12], [20, 255, 1]], np.uint8)
VOC = LabelRules(21)
COLORS = np.array([[0, 0, 0], [200, 30, 30], [30, 200, 30]], np.uint8)
COLORED = LabelRules(3, palette=COLORS)
GREYS = LabelRules(2, palette=np.array([[0, 0, 0], [255, 255, 255]], np.uint8))


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def save_palette(path, numbers, colors, **options):
    image = Image.fromarray(np.array(numbers, np.uint8), "P")
    image.putpalette(np.asarray(colors, np.uint8).tobytes())
    image.save(path, **options)
    return path


def read(path, rules=VOC):
    label = read_label(path, rules)
    assert label.ids.dtype == np.uint8
    return label.ids.tolist()


def refused(path, rules=VOC):
    with pytest.raises(Problem) as caught:
        read_label(path, rules)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return caught.value.detail


def write_grey_png(path, bits, values):
    """A PNG of one row of grey values of so many bits, which Pillow cannot write."""

    def chunk(name, data):
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    packed = 0
    for value in values:
        packed = packed << bits | value
    row = packed.to_bytes(bits * len(values) // 8, "big")
    header = struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


# Numbers


def test_palette_images_give_indices_not_luminance(tmp_path):
    path = save_palette(tmp_path / "a.png", IDS, voc_palette())
    assert read(path) == IDS.tolist()
    grey = np.array(Image.open(path).convert("L"))
    assert grey[0].tolist() == [0, 57, 34]  # what the tutorial's reading makes of it


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "pgm"])
def test_grey_images_give_their_values(tmp_path, suffix):
    assert read(save(tmp_path / f"a.{suffix}", IDS)) == IDS.tolist()


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_grey_images_of_16_bits_give_their_values(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), IDS.astype(np.uint16))
    assert read(path) == IDS.tolist()
    cv2.imwrite(str(path), IDS.astype(np.uint16) * 1000)
    assert "9000, 12000" in refused(path)
    wide = LabelRules(3, void_ids=(12000, 20000), ids=(0, 9000, 1000))
    cv2.imwrite(str(path), np.array([[0, 9000, 1000, 20000]], np.uint16))
    assert read(path, wide) == [[0, 1, 2, 255]]


def test_32_bit_numbers_are_read_and_negative_ones_are_refused(tmp_path):
    path = save(tmp_path / "a.tif", IDS.astype(np.int32))
    assert read(path) == IDS.tolist()
    save(path, np.array([[0, -1, 70000]], np.int32))
    assert refused(path).startswith("-1, 70000; expected 0 to 20 and 255")


@pytest.mark.parametrize("bits, ids", [(1, [0, 1]), (2, [0, 1, 3, 2]), (4, [0, 7, 15, 1])])
def test_images_of_few_bits_keep_their_ids(tmp_path, bits, ids):
    path = save_palette(tmp_path / "p.png", [ids], voc_palette(), bits=bits)
    assert read(path) == [ids]
    grey = write_grey_png(tmp_path / "g.png", bits, ids * 4)
    assert read(grey) == [ids * 4]


def test_bilevel_images_hold_0_and_1(tmp_path):
    for suffix, options in (("png", {}), ("tif", {}), ("bmp", {})):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(np.array([[False, True]])).save(path, **options)
        assert read(path, LabelRules(2)) == [[0, 1]]


@pytest.mark.parametrize("white", [3, 7, 100, 255, 1000, 65535])
def test_portable_grey_maps_give_their_values_whatever_their_white(tmp_path, white):
    size = 1 if white < 256 else 2
    row = b"".join(value.to_bytes(size, "big") for value in (0, 1, 2, 3))
    (tmp_path / "a.pgm").write_bytes(b"P5\n# made by hand\n4 1\n%d\n" % white + row)
    assert read(tmp_path / "a.pgm") == [[0, 1, 2, 3]]


def test_an_opaque_alpha_channel_does_not_matter_and_transparency_is_refused(tmp_path):
    colors = voc_palette()[IDS]
    opaque, clear = np.full((2, 3), 255, np.uint8), np.zeros((2, 3), np.uint8)
    assert read(save(tmp_path / "a.png", np.dstack([colors, opaque]))) == IDS.tolist()
    assert read(save(tmp_path / "b.png", np.dstack([IDS, opaque]))) == IDS.tolist()
    assert "transparent" in refused(save(tmp_path / "c.png", np.dstack([colors, clear])))
    assert "transparent" in refused(save(tmp_path / "d.png", np.dstack([IDS, clear])))
    clear_class = save_palette(tmp_path / "e.png", [[0, 1, 2]], COLORS, transparency=1)
    assert read(clear_class, LabelRules(3)) == [[0, 1, 2]]  # numbers count, colours do not
    assert "transparent" in refused(clear_class, COLORED)
    clear_unused = save_palette(tmp_path / "f.png", [[0, 2, 2]], COLORS, transparency=1)
    assert read(clear_unused, COLORED) == [[0, 2, 2]]


def test_void_ids_become_ignore_index(tmp_path):
    path = save(tmp_path / "a.png", IDS)
    assert read(path, LabelRules(21, void_ids=(12, 20))) == [[0, 9, 255], [255, 255, 1]]
    assert read(path, LabelRules(21, 100, void_ids=(255,))) == [[0, 9, 12], [20, 100, 1]]


def test_configured_ids_are_those_of_the_classes_in_their_order(tmp_path):
    grey = save(tmp_path / "a.png", np.array([[0, 255, 7, 3]], np.uint8))
    rules = LabelRules(2, void_ids=(7, 3), ids=(0, 255))
    label = read_label(grey, rules)
    assert label.ids.tolist() == [[0, 1, 255, 255]]
    assert label.stored == {0: 1, 3: 1, 7: 1, 255: 1}
    assert "7; expected [0,255]" in refused(grey, LabelRules(2, void_ids=(3,), ids=(0, 255)))
    swapped = save_palette(tmp_path / "p.png", [[0, 1, 2]], COLORS[::-1])
    assert read(swapped, LabelRules(3, palette=COLORS, ids=(1, 0, 2))) == [[1, 0, 2]]


def sbd_file(path, ids, key="GTcls"):
    savemat(path, {key: {"Boundaries": np.zeros(20), "Segmentation": ids}})
    return path


def test_mat_files_of_sbd_give_their_segmentation(tmp_path):
    assert read(sbd_file(tmp_path / "a.mat", IDS)) == IDS.tolist()
    assert "300; expected" in refused(
        sbd_file(tmp_path / "a.mat", IDS.astype(np.uint16) + 300 - IDS)
    )


@pytest.mark.parametrize("content", ["other key", "damaged", "missing"])
def test_other_mat_files_are_refused(tmp_path, content):
    path = tmp_path / "a.mat"
    if content == "other key":
        sbd_file(path, IDS, "GTinst")
    elif content == "damaged":
        path.write_bytes(b"MATLAB 5.0 nothing of the kind" * 9)
    detail = refused(path)
    assert "no GTcls.Segmentation" in detail or "no such file" in detail


# Colours


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_colours_are_read_through_vocs_palette_by_default(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", voc_palette()[IDS], **options)
    assert read(path) == IDS.tolist()
    assert read(path, LabelRules(21, ignore_index=100)) == [[0, 9, 12], [20, 100, 1]]


def test_colours_are_read_through_the_given_palette_whose_last_rows_are_void(tmp_path):
    palette = np.array([[9, 9, 9], [10, 0, 0], [0, 0, 0]], np.uint8)
    path = save(tmp_path / "a.png", palette[[[0, 1], [2, 1]]])
    assert read(path, LabelRules(2, palette=palette)) == [[0, 1], [255, 1]]
    assert read(path, LabelRules(3, palette=palette)) == [[0, 1], [2, 1]]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_with_a_configured_palette_the_colours_of_palette_images_decide(tmp_path, order):
    ids = np.array([[0, 1, 2, 1]])
    path = save_palette(tmp_path / "a.png", np.argsort(order)[ids], COLORS[order])
    assert read(path, COLORED) == ids.tolist()
    assert read_label(path, COLORED).stored == {}
    assert read(path, LabelRules(3)) == np.argsort(order)[ids].tolist()  # no palette: indices


def test_a_palette_image_with_a_colour_of_no_class_is_refused(tmp_path):
    path = save_palette(tmp_path / "a.png", [[0, 2, 1]], [*COLORS[:2], [7, 8, 9]])
    assert "colour (7, 8, 9) at row 0, column 1 belongs to no class (1 of 3" in refused(
        path, COLORED
    )


def test_a_palette_image_of_vocs_colours_at_other_indices_is_refused(tmp_path):
    vocs = voc_palette(21)
    path = save_palette(tmp_path / "a.png", [[0, 1, 1]], vocs[[15, 0]])
    detail = refused(path)
    assert "the number 0 has the colour (192, 128, 128), which is VOC's for the id 15" in detail
    # Both repairs give what they say
    Image.open(path).convert("RGB").save(tmp_path / "rgb.png")
    assert read(tmp_path / "rgb.png") == [[15, 0, 0]]
    assert f"dataset.source.ids=[{','.join(map(str, range(21)))}]" in detail
    assert read(path, LabelRules(21, ids=tuple(range(21)))) == [[0, 1, 1]]


def test_a_palette_image_of_one_colour_or_of_others_than_vocs_is_read_by_index(tmp_path):
    black = save_palette(tmp_path / "a.png", [[0, 1, 2]], np.zeros((3, 3)))
    assert read(black) == [[0, 1, 2]]
    assert read(save_palette(tmp_path / "b.png", [[0, 1, 2]], COLORS[::-1])) == [[0, 1, 2]]
    # Person is none of two classes: VOC's colour of it tells nothing
    assert read(
        save_palette(tmp_path / "c.png", [[0, 1]], voc_palette()[[0, 15]]), LabelRules(2)
    ) == [[0, 1]]


def test_grey_images_hold_ids_unless_the_palette_is_grey(tmp_path):
    binary = save(tmp_path / "a.png", np.array([[0, 255]], np.uint8))
    assert read(binary, GREYS) == [[0, 1]]
    bilevel = tmp_path / "b.png"
    Image.fromarray(np.array([[False, True]])).save(bilevel)
    assert read(bilevel, GREYS) == [[0, 1]]
    assert read(save(tmp_path / "c.png", np.array([[0, 1, 2]], np.uint8)), COLORED) == [[0, 1, 2]]
    assert "colour (1, 1, 1)" in refused(
        save(tmp_path / "d.png", np.array([[0, 1]], np.uint8)), GREYS
    )


def test_a_grey_image_that_fits_as_ids_and_as_colours_is_refused(tmp_path):
    rules = LabelRules(3, palette=np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], np.uint8))
    path = save(tmp_path / "a.png", np.array([[0, 255]], np.uint8))  # white, or void?
    assert "the number 255 has the colour (255, 255, 255)" in refused(path, rules)
    Image.open(path).convert("RGB").save(tmp_path / "rgb.png")
    assert read(tmp_path / "rgb.png", rules) == [[0, 1]]
    assert read(path, LabelRules(3, palette=rules.palette, ids=(0, 1, 2))) == [[0, 255]]
    # It fits as colours alone: an optimiser stores what is grey as grey
    middle = LabelRules(3, palette=np.array([[0, 0, 0], [128, 128, 128], [255, 0, 0]], np.uint8))
    assert read(save(tmp_path / "b.png", np.array([[0, 128]], np.uint8)), middle) == [[0, 1]]


def test_a_gif_is_read_by_its_colours_alone(tmp_path):
    path = save_palette(tmp_path / "a.gif", [[1, 0]], [[255, 255, 255], [0, 0, 0]])
    assert "dataset.source.palette=[[0,0,0],[255,255,255]]" in refused(path, LabelRules(2))
    assert read(path, GREYS) == [[0, 1]]
    # Numbers of a GIF mean nothing, whatever ids are given: white would be void here
    detail = refused(path, LabelRules(2, ids=(0, 255)))
    assert "palette=[[0,0,0],[255,255,255]] without dataset.source.ids" in detail


def test_a_grey_mask_with_three_channels_names_the_palette_that_reads_it(tmp_path):
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    path = save(tmp_path / "a.png", np.stack([mask] * 3, axis=-1))
    assert "set dataset.source.palette=[[0,0,0],[255,255,255]]" in refused(path, LabelRules(2))
    assert read(path, GREYS) == [[0, 1], [1, 0]]
    assert "save one as an 8-bit grey PNG" in refused(path, LabelRules(5))


def test_an_unknown_colour_is_named_with_its_place(tmp_path):
    colors = voc_palette()[IDS]
    colors[0, 2] = (1, 2, 3)
    colors[1, 1] = (1, 2, 4)
    detail = refused(save(tmp_path / "a.png", colors))
    assert "colour (1, 2, 3) at row 0, column 2 belongs to no class" in detail
    assert "(2 of 6 pixels, 2 such colours)" in detail and "dataset.source.palette" in detail


def test_a_class_colour_beyond_num_classes_is_unknown(tmp_path):
    path = save(tmp_path / "a.png", voc_palette()[IDS])
    assert "at row 1, column 0 belongs to no class (1 of 6" in refused(path, LabelRules(20))


def test_smooth_edges_of_colour_masks_are_recognised(tmp_path):
    mask = np.zeros((64, 64, 3), np.uint8)
    cv2.circle(mask, (32, 32), 20, (200, 30, 30), -1, cv2.LINE_AA)
    assert "smooth edges" in refused(save(tmp_path / "a.png", mask), COLORED)


def test_grey_values_in_three_channels_are_refused_with_the_repair(tmp_path):
    path = save(tmp_path / "a.png", np.dstack([IDS] * 3))
    assert "its channels are equal: if they hold class ids, save one" in refused(path)


# Files that cannot be labels


@pytest.mark.parametrize("suffix, options", [("jpg", {}), ("tif", {"compression": "jpeg"})])
def test_a_jpeg_cannot_be_a_label(tmp_path, suffix, options):
    path = save(tmp_path / f"a.{suffix}", np.zeros((16, 16), np.uint8), **options)
    assert "a JPEG cannot hold labels" in refused(path)


def test_colours_of_16_bits_are_refused_and_not_cut_to_8(tmp_path):
    for suffix in ("png", "tif", "ppm"):
        path = tmp_path / f"a.{suffix}"
        cv2.imwrite(str(path), np.ones((2, 2, 3), np.uint16))
        assert "16 bits a channel; expected 8" in refused(path)


@pytest.mark.parametrize("mode", ["CMYK", "F", "LAB"])
def test_images_of_other_modes_are_refused_with_the_repair(tmp_path, mode):
    path = tmp_path / "a.tif"
    Image.new(mode, (2, 2)).save(path)
    assert f"label image of mode {mode}" in refused(path)


def test_a_tiff_whose_zero_is_white_is_refused(tmp_path):
    path = save(tmp_path / "a.tif", IDS)
    tag = struct.pack("<HHI", 262, 3, 1)
    content = path.read_bytes()
    assert content.count(tag + b"\1\0") == 1
    path.write_bytes(content.replace(tag + b"\1\0", tag + b"\0\0"))
    assert "MINISWHITE" in refused(path)


def test_several_images_in_one_file_are_refused_but_not_a_geotiffs_overviews(tmp_path):
    pages = [Image.fromarray(np.full((4, 4), i, np.uint8)) for i in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert "3 images in one file" in refused(tmp_path / "a.tif")
    pages[1].save(tmp_path / "b.tif", save_all=True, append_images=[pages[0].resize((2, 2))])
    assert read(tmp_path / "b.tif") == np.ones((4, 4)).tolist()


def test_a_damaged_file_is_named(tmp_path):
    whole = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:500])
    (tmp_path / "text.png").write_text("no image")
    for name in ("cut.png", "text.png"):
        assert "cannot be decoded" in refused(tmp_path / name)
    assert "no such file" in refused(tmp_path / "absent.png")


def test_a_label_of_too_many_pixels_is_named(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", IDS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2)
    assert "cannot be decoded" in refused(path)


# Rules


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ids": (1, 2)}, r"ids=\[1,2\]: 2 numbers for 3 classes"),
        ({"ids": (1, 2, 3), "void_ids": (0, 3)}, "3 is in dataset.source.void_ids, too"),
        ({"ids": (1, 2, 3), "ignore_index": 0}, "it would be the class of the stored 1"),
        ({"palette": COLORS[:2]}, "2 colours for 3 classes"),
    ],
)
def test_rules_that_contradict_each_other_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        LabelRules(3, **options)


def explained(numbers, num_classes, pixels=None, **options):
    stored = dict(zip(numbers, pixels or [100] * len(numbers), strict=True))
    return explain_ids(stored, LabelRules(num_classes, **options))


def followed(hint, numbers, num_classes):
    """The ids by number when the first repair of a hint is followed."""
    found = {}
    for key in ("ids", "void_ids"):
        text = hint.partition(f"dataset.source.{key}=[")[2].partition("]")[0]
        if text and not (found and ";" in hint.partition(f"source.{key}")[0]):
            found[key] = tuple(map(int, text.split(",")))
    label = ids_of_numbers(np.array([numbers]), LabelRules(num_classes, **found), "a.png")
    return label.ids[0].tolist()


@pytest.mark.parametrize(
    "numbers, num_classes, ids",
    [
        ([1, 2, 3], 3, [0, 1, 2]),
        ([1, 2, 3, 255], 3, [0, 1, 2, 255]),
        ([0, 1, 2, 3], 3, [255, 0, 1, 2]),  # 0 is void
        ([0, 85, 170], 3, [0, 1, 2]),
        ([0, 85, 170, 255], 4, [0, 1, 2, 3]),
        ([0, 85, 170, 255], 3, [0, 1, 2, 255]),
        ([0, 85, 170], 4, [0, 1, 2]),  # one class is absent
        ([0, 80, 200], 7, [0, 2, 5]),
        ([0, 127, 254], 3, [0, 1, 2]),
        ([0, 127, 255], 3, [0, 1, 2]),
        ([0, 128, 255], 3, [0, 1, 2]),
        ([0, 63, 127, 191, 255], 5, [0, 1, 2, 3, 4]),
        ([0, 50, 100, 150], 4, [0, 1, 2, 3]),
        ([0, 7, 8], 3, [0, 1, 2]),
        ([0, 255], 2, [0, 1]),
    ],
)
def test_a_repair_that_is_followed_gives_right_ids(numbers, num_classes, ids):
    assert followed(explained(numbers, num_classes), numbers, num_classes) == ids


def test_the_last_class_of_ids_that_start_at_1_is_never_called_void():
    assert explained([1, 2, 3], 3) == "ids seem to start at 1: set dataset.source.ids=[1,2,3]"


def test_foreground_saved_as_255_is_told_from_void():
    hint = explained([0, 255], 2)
    assert "save foreground as 1, or set dataset.source.ids=[0,255]" in hint
    assert explained([0, 255], 2, void_ids=(255,)) == ""  # as the hint says
    assert explained([0, 255], 2, ids=(0, 1)) == explained([0, 255], 2, ids=(0, 255)) == ""
    assert explained([0, 1, 255], 2) == explained([0, 1], 2) == explained([0], 2) == ""
    assert "255 is ignore_index" in explained([0, 128, 255], 2, void_ids=(128,))


def test_a_few_numbers_of_no_class_may_be_void_or_further_classes():
    hint = explained([0, 1, 2, 11], 3)
    assert hint == "if [11] means void, set dataset.source.void_ids=[11]"
    assert "void_ids=[7,11]" in explained([0, 1, 2, 7, 11], 3, void_ids=(7,))
    assert "if there are 5 classes, name all of them" in explained([0, 1, 2, 3, 4], 3)
    assert explained([0, 1, 2], 3) == explained([], 3) == ""


def test_smooth_edges_of_grey_masks_are_recognised():
    mask = np.zeros((64, 64), np.uint8)
    cv2.circle(mask, (32, 32), 20, 255, -1, cv2.LINE_AA)
    numbers, pixels = np.unique(mask, return_counts=True)
    assert "smooth edges" in explained(numbers.tolist(), 2, pixels.tolist())
    jpeg = cv2.imdecode(cv2.imencode(".jpg", mask // 255)[1], cv2.IMREAD_GRAYSCALE)
    assert set(np.unique(jpeg)) <= {0, 1, 2}  # ids so close are not even told apart by JPEG


def test_grey_values_of_the_voc_colours_are_recognised():
    assert "converted to greyscale" in explained([0, 33, 57, 220], 21)
    assert "converted to greyscale" in explained([34, 38, 75, 220], 21)
    assert "greyscale" not in explained([33, 57, 99, 100, 101], 21)
