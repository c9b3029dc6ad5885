import cv2
import numpy as np
import pytest
from PIL import Image

from src.data.mindrecord import MindRecordFile
from src.data.sources.file_lists import Sample
from src.data.transforms import decode_image, decode_label
from src.utils.palette import voc_palette
from tests.data.samples import convert, picture, refusal, visible


def test_images_and_class_ids_come_out_as_they_went_in(folder, out):
    label = np.array([[0, 1, 2, 255]] * 3, np.uint8)
    sample = folder.add("a", picture(3, 4), label)
    (row,) = MindRecordFile(convert(folder, out).path)
    assert row[0] == "a"
    assert row[1] == sample.image.read_bytes()  # a JPEG stays byte for byte
    assert decode_label(row[2]).tolist() == label.tolist()


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".ppm"])
def test_other_formats_lose_nothing(folder, out, suffix):
    image = picture(20, 30)
    sample = folder.add("a", image, image_suffix=suffix)
    if suffix == ".webp":
        Image.fromarray(image).save(sample.image, lossless=True)
    (row,) = MindRecordFile(convert(folder, out).path)
    assert decode_image(row[1]).tolist() == image.tolist()


def test_grey_images_become_three_equal_channels(folder, out):
    grey = picture(6, 8)[..., 0]
    folder.add("a", grey, image_suffix=".png")
    (row,) = MindRecordFile(convert(folder, out).path)
    assert decode_image(row[1]).tolist() == np.dstack([grey] * 3).tolist()


def test_palette_labels_are_stored_as_ids_not_as_luminance(folder, out):
    ids = np.array([[0, 9, 12, 255]] * 4, np.uint8)
    sample = folder.add("a", picture(4, 4))
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette(voc_palette().tobytes())
    palette.save(sample.label)
    prepared = convert(folder, out, num_classes=21)
    (row,) = MindRecordFile(prepared.path)
    assert (
        cv2.imdecode(np.frombuffer(row[2], np.uint8), cv2.IMREAD_GRAYSCALE).tolist() == ids.tolist()
    )
    assert prepared.report["classes"][12]["pixels"] == 4


def test_coloured_labels_go_through_the_given_palette(folder, out):
    palette = np.array([[10, 20, 30], [200, 0, 0], [1, 1, 1]], np.uint8)
    ids = np.array([[0, 1], [1, 2]], np.uint8)
    folder.add("a", picture(2, 2), palette[ids])
    (row,) = MindRecordFile(convert(folder, out, num_classes=2, palette=palette).path)
    assert decode_label(row[2]).tolist() == [[0, 1], [1, 255]]  # the third colour is void


def test_void_ids_of_the_source_become_ignore_index(folder, out):
    folder.add("a", picture(1, 3), np.array([[0, 1, 11]], np.uint8))
    folder.source.void_ids = (11,)
    (row,) = MindRecordFile(convert(folder, out).path)
    assert decode_label(row[2]).tolist() == [[0, 1, 255]]


def test_exif_orientation_is_ignored_here_as_in_training_and_told(folder, out, caplog):
    sample = folder.add("a", picture(6, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    Image.fromarray(picture(6, 8)).save(sample.image, exif=exif)
    prepared = convert(folder, out)
    (row,) = MindRecordFile(prepared.path)
    assert decode_image(row[1]).shape == (6, 8, 3)
    assert prepared.report["height"]["max"] == 6
    assert prepared.report["warnings"][0] == "images that EXIF would turn, taken as stored: a"
    assert "EXIF would turn" in caplog.text


@pytest.mark.parametrize("orientation, size", [(3, (6, 8)), (2, (6, 8)), (6, (6, 6))])
def test_a_label_that_fits_an_image_turned_by_exif_or_not_is_refused(
    folder, out, orientation, size
):
    sample = folder.add("a", picture(*size))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(*size)).save(sample.image, exif=exif)
    assert "the label fits either way; if it is drawn on the pixels as stored, remove" in refusal(
        folder, out
    )
    Image.fromarray(picture(*size)).save(sample.image)  # as the message says
    assert convert(folder, out).report["warnings"] == ["classes without a pixel: 1, 2"]


def test_a_label_drawn_on_the_turned_image_is_refused_with_the_cause(folder, out):
    sample = folder.add("a", picture(6, 8), np.zeros((8, 6), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(6, 8)).save(sample.image, exif=exif)
    assert "image 6×8, label 8×6 (height×width); the image is stored lying and EXIF" in refusal(
        folder, out
    )


def test_all_problems_are_collected_before_one_refusal(folder, out):
    for i in range(4):
        folder.add(f"good{i}")
    folder.add("size", picture(6, 8), np.zeros((5, 8), np.uint8))
    folder.add("ids", picture(1, 3), np.array([[0, 3, 200]], np.uint8))
    truncated = folder.add("half", picture(60, 80))
    truncated.image.write_bytes(truncated.image.read_bytes()[:500])
    folder.add("text").image.write_text("no image")
    folder.add("empty").image.write_bytes(b"")
    folder.add("nolabel").label.unlink()
    folder.add("emptylabel").label.write_bytes(b"")
    folder.add("badlabel").label.write_bytes(b"\x89PNG\r\n\x1a\n")
    folder.source.listed.append(Sample("unlabelled", folder.root / "good0.jpg", None))
    folder.add("deep", image_suffix=".png")
    cv2.imwrite(str(folder.root / "deep.png"), np.zeros((6, 8, 3), np.uint16))
    message = refusal(folder, out)
    assert message.startswith(
        "split 'train': 10 of 14 samples cannot be trained on (sizes differ: size_ids.png; "
        "label ids of no class: ids_ids.png; undecodable image: deep.png, half.jpg, text.jpg; empty "
        "file: empty.jpg, emptylabel_ids.png; missing file: good0.jpg, nolabel_ids.png; unreadable "
        "label: badlabel_ids.png); the first: "
    )
    listing = out / "train-problems.txt"
    assert message.endswith(f"all of them: {listing}")
    lines = listing.read_text().splitlines()
    assert len(lines) == 10
    assert "image 6×8, label 5×8 (height×width)" in lines[0]
    assert "3, 200; expected 0 to 2 and 255" in lines[1]
    assert any("uint16 values; expected 8 bits a channel" in line for line in lines)


def test_the_list_of_problems_goes_when_they_are_mended(folder, out):
    sample = folder.add("a", picture(1, 1), np.array([[7]], np.uint8))
    refusal(folder, out)
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(sample.label)
    convert(folder, out)
    assert [name[:6] for name in visible(out)] == ["train-"]


def test_grey_values_of_palette_images_are_explained(folder, out):
    folder.add("a", picture(1, 3), np.array([[0, 38, 75]], np.uint8))  # luminance of classes 1, 2
    assert "palette images were converted to greyscale" in refusal(folder, out, num_classes=21)


@pytest.mark.parametrize(
    "numbers, num_classes, repair",
    [([0, 255], 2, {"ids": (0, 255)}), ([1, 2, 3], 3, {"ids": (1, 2, 3)})],
)
def test_numbers_that_cannot_be_ids_are_refused_with_a_repair_that_is_right(
    folder, out, numbers, num_classes, repair
):
    for name, values in (("a", numbers[:2]), ("b", numbers[-2:])):  # only together they tell
        folder.add(name, picture(1, 2), np.array([values], np.uint8))
    listed = ",".join(map(str, repair["ids"]))
    assert f"dataset.source.ids=[{listed}]" in refusal(folder, out, num_classes=num_classes)
    record = MindRecordFile(convert(folder, out, num_classes=num_classes, **repair).path)
    found = [decode_label(label).tolist() for _, _, label in record]
    ids = list(range(num_classes))
    assert found == [[ids[:2]], [ids[-2:]]]


def test_255_may_be_void_where_the_config_says_so(folder, out):
    folder.add("a", picture(1, 2), np.array([[0, 255]], np.uint8))
    assert "if 255 does mean void, set dataset.source.void_ids=[255]" in refusal(
        folder, out, num_classes=2
    )
    folder.source.void_ids = (255,)
    assert convert(folder, out, num_classes=2).report["ignored_pixels"] == 1


def test_an_unknown_colour_is_refused_with_the_reason(folder, out):
    folder.add("a", picture(1, 2), np.array([[[0, 0, 0], [1, 2, 3]]], np.uint8))
    assert "colour (1, 2, 3) at row 0, column 1" in refusal(folder, out)


def test_a_split_that_is_all_void_is_refused(folder, out):
    folder.add("a", picture(1, 2), np.array([[255, 255]], np.uint8))
    assert "split 'train': no label has a valid pixel, all are void" in refusal(folder, out)
