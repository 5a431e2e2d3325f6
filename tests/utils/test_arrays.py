import numpy as np
import pytest

from text2token.utils.arrays import sum_by_key


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000])
def test_sums_are_those_of_a_dictionary(size):
    keys = np.random.default_rng(size).integers(0, 50, size, dtype=np.int32)
    weights = np.arange(size, dtype=np.float16)
    sums = {}
    for key, weight in zip(keys.tolist(), weights.tolist(), strict=True):
        sums[key] = sums.get(key, 0.0) + weight
    found, totals = sum_by_key(keys, weights)
    assert dict(zip(found.tolist(), totals.tolist(), strict=True)) == sums
    assert found.tolist() == sorted(sums)
