"""The one line of an error."""

from src.utils.errors import error_summary

RULE = "-" * 66
PAGE = """Exception thrown from dataset pipeline. Refer to 'Dataset Pipeline Error Message'.

{calls}{rule}
- Dataset Pipeline Error Message: 
{rule}
[ERROR] Cannot batch tensors with different shapes in column 0.

{rule}
- C++ Call Stack: (For framework developers) 
{rule}
batch_op.cc(301).
"""
CALLS = """{rule}
- Python Call Stack: 
{rule}
Traceback (most recent call last):
  File "mine.py", line 5, in __call__
ValueError: brightness is 7

"""


def test_the_first_line_of_a_text_is_what_it_says():
    assert error_summary(RuntimeError("short\nand long")) == "short"
    assert error_summary(RuntimeError()) == ""


def test_of_the_dataset_pipeline_it_is_what_the_page_says():
    page = PAGE.format(rule=RULE, calls="")
    expected = "Cannot batch tensors with different shapes in column 0."
    assert error_summary(RuntimeError(page)) == expected
    page = PAGE.format(rule=RULE, calls=CALLS.format(rule=RULE))
    assert error_summary(RuntimeError(page)) == "ValueError: brightness is 7"
