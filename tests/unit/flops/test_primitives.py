"""The course's table, applied by hand."""

from lvray.flops.primitives import matmul, rms_norm, softmax, swiglu


def test_a_product_has_n_products_and_n_minus_one_sums_an_entry():
    assert matmul(2, 3, 4) == 2 * 4 * (3 + 2)


def test_an_inner_dimension_of_one_needs_no_sums():
    assert matmul(5, 1, 7) == 35


def test_softmax_is_exponentials_a_sum_and_divisions():
    assert softmax(1, 4) == 4 * 10 + 3 + 4
    assert softmax(3, 4) == 3 * softmax(1, 4)


def test_rms_norm_charges_its_square_root_once_a_row():
    squares, total, mean, epsilon, root, divided, gained = 8, 7, 1, 1, 10, 8, 8
    assert rms_norm(1, 8) == squares + total + mean + epsilon + root + divided + gained
    assert rms_norm(512, 896) == 1_840_640  # protocols of the course, Qwen2.5-0.5B at 512 tokens


def test_swiglu_is_fifteen_a_unit():
    negate, exponential, add, invert, gate, value = 1, 10, 1, 1, 1, 1
    assert swiglu(1) == negate + exponential + add + invert + gate + value == 15
