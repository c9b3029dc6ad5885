import numpy as np
import pytest

from src.check_device.check import Check, judge

CHECK = Check("layers", "name", dict, dict, "NumPy", allowed=0.1)


def found(array, expected):
    expected = None if expected is None else {"output": np.array(expected)}
    return judge(CHECK, {"output": np.array(array)}, expected, 1.0)


def test_a_difference_is_relative_to_the_largest_right_value():
    result = found([1.0, 2.0, -3.7], [1.0, 2.2, -4.0])
    assert result.difference == pytest.approx(0.3 / 4.0)
    assert not result.failed
    assert found([1.0, 2.0, -3.5], [1.0, 2.0, -4.0]).failed


def test_without_right_values_the_results_are_differences():
    assert found([0.05, -0.02], None).difference == 0.05
    assert found([0.2], None).failed


def test_right_values_that_are_all_zero_leave_the_difference_as_it_is():
    assert found([0.05], [0.0]).difference == 0.05


@pytest.mark.parametrize(
    ("array", "error"),
    [
        ([1.0, np.nan], "output: has values that are not finite"),
        ([1.0], "output: its shape is (1,), not (2,)"),
    ],
)
def test_what_cannot_be_compared_has_failed(array, error):
    result = found(array, [1.0, 2.0])
    assert (result.failed, result.error, result.difference) == (True, error, None)


def test_what_a_device_does_not_have_is_no_failure():
    assert not CHECK.result(unsupported="not here").failed
