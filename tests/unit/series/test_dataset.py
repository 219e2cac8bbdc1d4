"""Reading, caching, writing and splitting data sets, and what is said when they are not as they should be."""

import resource
import signal
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lvray.core.errors import DataError
from lvray.series import dataset
from lvray.series.dataset import Dataset
from lvray.series.readers import read
from lvray.series.split import split_systems

VALUES = np.arange(24, dtype=np.float64).reshape(2, 4, 3)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LVRAY_CACHE", str(folder))
    return folder


def hdf5(path: Path, **datasets: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, content in datasets.items():
            file[name] = content
    return path


def csv_file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# Reading what is well


def test_hdf5_in_the_course_layout_is_read(tmp_path):
    path = hdf5(tmp_path / "a.h5", trajectories=VALUES.astype(np.float32), time=[0.0, 2, 4, 6])
    found = read(path)
    np.testing.assert_array_equal(found.values, VALUES)
    assert found.values.dtype == np.float64
    assert found.times.tolist() == [0, 2, 4, 6]
    assert found.variables == ("x1", "x2", "x3")
    assert (found.systems, found.steps) == (2, 4)


def test_without_times_the_steps_are_counted(tmp_path):
    assert read(hdf5(tmp_path / "a.hdf5", trajectories=VALUES)).times.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["values", "trajectories"])
def test_npz_is_read_under_either_name(tmp_path, name):
    path = tmp_path / "a.npz"
    np.savez(path, **{name: VALUES}, time=np.arange(4) * 0.5, variables=["a", "b", "c"])
    found = read(path)
    np.testing.assert_array_equal(found.values, VALUES)
    assert found.times.tolist() == [0, 0.5, 1, 1.5]
    assert found.variables == ("a", "b", "c")


def test_csv_with_comments_and_blanks_is_one_system(tmp_path):
    text = "# pelts, thousands\nYear, Lynx, Hare\n\n1900, 4.0, 30.0\n# a remark\n1901, 6.1, 47.2\n"
    found = read(csv_file(tmp_path / "pelts.csv", text))
    assert found.variables == ("Lynx", "Hare")
    assert found.times.tolist() == [1900, 1901]
    np.testing.assert_array_equal(found.values, [[[4.0, 30.0], [6.1, 47.2]]])


def test_csv_with_a_system_column_is_many_systems(tmp_path):
    text = "a,System,time\n1,north,0\n2,south,0\n3,north,1\n4,south,1\n"
    found = read(csv_file(tmp_path / "a.csv", text))
    np.testing.assert_array_equal(found.values, [[[1], [3]], [[2], [4]]])
    assert found.times.tolist() == [0, 1]
    assert found.variables == ("a",)


def test_missing_values_are_read_when_they_are_allowed(tmp_path):
    path = csv_file(tmp_path / "a.csv", "time,a,b\n0,1,\n1,NA,2\n")
    found = read(path, allow_missing=True)
    np.testing.assert_array_equal(found.values, [[[1, np.nan], [np.nan, 2]]])
    with pytest.raises(DataError, match="2 of 4 values are NaN or infinite; the first is nan at"):
        read(path)


def test_a_data_set_cannot_be_written_to(tmp_path):
    found = read(hdf5(tmp_path / "a.h5", trajectories=VALUES))
    with pytest.raises(ValueError, match="read-only"):
        found.values[0, 0, 0] = 1


# Reading what is not


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.h5: there is no such data file"):
        read(tmp_path / "nowhere.h5")
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(DataError, match="a folder"):
        read(tmp_path / "folder.h5")


def test_an_unknown_ending_lists_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=r"\.h5, \.hdf5, \.npz, \.csv, not in '\.txt'"):
        read(csv_file(tmp_path / "a.txt", "time,a\n0,1\n"))


@pytest.mark.parametrize("keep", [0, 10, 700, 2500])
@pytest.mark.parametrize("ending", [".h5", ".npz"])
def test_a_truncated_file_is_an_error_in_words(tmp_path, ending, keep):
    path = tmp_path / f"a{ending}"
    values = np.random.default_rng(0).normal(size=(5, 40, 2))
    if ending == ".h5":
        hdf5(path, trajectories=values)
    else:
        np.savez(path, values=values)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="not a whole"):
        read(path)


def test_a_missing_dataset_lists_those_that_are_there(tmp_path):
    with pytest.raises(DataError, match=r"no dataset /trajectories .* it has /series, /time"):
        read(hdf5(tmp_path / "a.h5", series=VALUES, time=np.arange(4.0)))
    np.savez(tmp_path / "a.npz", other=VALUES)
    with pytest.raises(DataError, match=r"neither values nor trajectories .* it has other"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (VALUES[0], r"shape \(4, 3\); it must have three dimensions"),
        (np.zeros((0, 4, 3)), r"empty, its shape is \(0, 4, 3\)"),
        (np.full((1, 2, 1), b"many"), "not real numbers"),
        (np.full((1, 2, 1), 1j), "complex128, not real numbers"),
    ],
)
def test_series_of_the_wrong_kind_are_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(hdf5(tmp_path / "a.h5", trajectories=content))


def test_python_objects_in_npz_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", values=np.array([[[None]]]))
    with pytest.raises(DataError, match="not a whole NPZ file of numbers"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("allow_missing", [False, True])
def test_infinite_values_are_counted_and_the_first_is_placed(tmp_path, allow_missing):
    values = VALUES.copy()
    values[1, 2, 0] = np.inf
    values[1, 3, 2] = -np.inf
    path = hdf5(tmp_path / "a.h5", trajectories=values)
    message = "2 of 24 values .* the first is inf at system 1, step 2, variable 'x1'"
    with pytest.raises(DataError, match=message):
        read(path, allow_missing=allow_missing)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 1, 2], r"time has shape \(3,\); /trajectories has 4 time steps"),
        ([0.0, 1, 1, 2], "time 1 at step 2"),
        ([0.0, np.nan, 1, 2], "time nan at step 1"),
    ],
)
def test_times_that_do_not_fit_are_refused(tmp_path, times, message):
    with pytest.raises(DataError, match=message):
        read(hdf5(tmp_path / "a.h5", trajectories=VALUES, time=times))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("time,a\n", "no row below"),
        ("0,1\n1,2\n", "holds no names"),
        ("time\n0\n", "at least one variable"),
        ("time,a,a\n0,1,2\n", "a name of its own"),
        (",time,a\n0,0,1\n", "a name of its own"),
        ("# remark\ntime,a\n0,1\n1,many\n", "line 4: 'many' in column 'a' is not a number"),
        ("time,a\n0,1\n1,2,3\n", "line 3: 3 cells, but there are 2 columns"),
        ("prey,predator\n2,1\n1,2\n", "time 1 at step 1"),
        (
            "system,time,a\nx,0,1\ny,0,1\ny,1,1\n",
            "system 'y' has 2 rows at times 0 to 1, system 'x'",
        ),
        ("time,a\n0,1\n1,1e999\n", "the first is inf at system 0, step 1, variable 'a'"),
        ('time,a\n0,"1\n', "not a CSV file"),
    ],
)
def test_csv_files_with_mistakes_say_where(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(csv_file(tmp_path / "a.csv", text))


def test_a_csv_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"time,a\n0,1\xff\n")
    with pytest.raises(DataError, match="UTF-8"):
        read(tmp_path / "a.csv")


# Writing and caching


def test_what_was_written_is_read_again(tmp_path):
    made = Dataset(VALUES.copy(), np.arange(4.0), ("a", "b", "c"), "test")
    path = tmp_path / "new" / "a.h5"
    dataset.write(path, made)
    found = read(path)
    np.testing.assert_array_equal(found.values, VALUES)
    assert found.variables == ("a", "b", "c")
    with h5py.File(path) as file:
        assert file["trajectories"].dtype == np.float32
        assert file["time"].dtype == np.float64


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        dataset.write(path, Dataset(VALUES.copy(), np.arange(4.0), ("a", "b", "c"), "test"))
        assert reader.read() == b"old"


def test_values_that_float32_cannot_hold_are_not_written(tmp_path):
    made = Dataset(np.full((1, 2, 1), 1e39), np.arange(2.0), ("a",), "test")
    with pytest.raises(DataError, match="float32"):
        dataset.write(tmp_path / "a.h5", made)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def full_disk():
    """No file may grow past 2 KB, as on a full disk. No longer than needed: pytest writes files too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_file_and_no_crumbs(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"old")
    made = Dataset(np.zeros((20, 100, 2)), np.arange(100.0), ("a", "b"), "test")
    with (
        full_disk(),
        pytest.raises(DataError, match=r"a\.h5: \d+ bytes could not be written: File too large"),
    ):
        dataset.write(path, made)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_generated_data_set_is_made_once(cache):
    path = dataset.load("coursework", path=None, seed=3, systems=2)
    assert path.parent == cache
    made = path.stat().st_mtime_ns
    assert dataset.load("coursework", path=None, seed=3, systems=2) == path
    assert path.stat().st_mtime_ns == made
    assert read(path).systems == 2
    assert dataset.load("coursework", path=None, seed=4, systems=2) != path
    assert dataset.load("lotka-volterra", path=None, seed=3, systems=2) != path


@pytest.mark.parametrize("place", [0, 100, 900, -1])
def test_a_damaged_cached_file_is_made_again(cache, place):
    path = dataset.load("lotka-volterra", path=None, seed=0, systems=2)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 1
    path.write_bytes(damaged)
    assert dataset.load("lotka-volterra", path=None, seed=0, systems=2).read_bytes() == whole
    path.write_bytes(whole[:place])
    assert dataset.load("lotka-volterra", path=None, seed=0, systems=2).read_bytes() == whole


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LVRAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"could not be written: .*\$LVRAY_CACHE may name another"):
        dataset.load("lotka-volterra", path=None, seed=0, systems=1)


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("LVRAY_CACHE", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    monkeypatch.setenv("HOME", "/home/someone")
    assert dataset.cache_folder() == Path("/own")
    monkeypatch.setenv("LVRAY_CACHE", "")
    assert dataset.cache_folder() == Path("/shared/lvray")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert dataset.cache_folder() == Path("/home/someone/.cache/lvray")


def test_a_given_path_is_the_data_set(tmp_path, cache):
    path = csv_file(tmp_path / "a.csv", "time,a\n0,1\n")
    for source in ("coursework", "file"):
        assert dataset.load(source, path=path, seed=0, systems=1000) == path
    assert not cache.exists()


@pytest.mark.parametrize(
    ("source", "path", "message"),
    [
        ("file", None, "needs a path"),
        ("coursework", "nowhere.h5", "there is no such data file"),
        ("weather", None, "'weather' cannot be generated; coursework, lotka-volterra can"),
    ],
)
def test_sources_that_are_not_there_are_refused(cache, source, path, message):
    with pytest.raises(DataError, match=message):
        dataset.load(source, path=path, seed=0, systems=1)


# Splitting


def test_fractions_and_counts_in_file_order():
    split = split_systems(10, train=0.6, validation=2, test=0.2, order="file")
    assert split.train == (0, 1, 2, 3, 4, 5)
    assert split.validation == (6, 7)
    assert split.test == (8, 9)


def test_fractions_that_make_a_whole_leave_nothing_over():
    split = split_systems(21, train=0.8, validation=0.1, test=0.1)
    assert [len(split.train), len(split.validation), len(split.test)] == [17, 2, 2]
    assert sorted(split.train + split.validation + split.test) == list(range(21))


@pytest.mark.parametrize("order", ["file", "random"])
def test_without_a_test_part_the_validation_systems_are_the_test_systems_too(order):
    split = split_systems(10, train=0.8, validation=2, test=None, order=order)
    assert split.test == split.validation
    assert sorted(split.train + split.validation) == list(range(10))


def test_a_split_is_shuffled_by_its_seed_alone():
    def split(seed: int):
        return split_systems(100, train=0.8, validation=0.1, test=0.1, seed=seed)

    assert split(1) == split(1)
    assert split(1) != split(2)
    assert split(1).train != tuple(sorted(split(1).train))


@given(
    count=st.integers(3, 300),
    parts=st.tuples(*[st.integers(1, 60) | st.floats(0.01, 0.9)] * 3),
    order=st.sampled_from(["random", "file"]),
)
def test_no_system_has_two_roles_and_no_role_is_empty(count, parts, order):
    train, validation, test = parts
    try:
        split = split_systems(count, train=train, validation=validation, test=test, order=order)
    except DataError:
        return
    chosen = split.train + split.validation + split.test
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(range(count))
    for wanted, part in zip(parts, (split.train, split.validation, split.test), strict=True):
        assert part
        exact = wanted if isinstance(wanted, int) else Fraction(repr(wanted)) * count
        assert abs(len(part) - exact) < 1
        assert isinstance(part[0], int)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((0.8, 0.1, 0.1), "the test part of the split is empty: 0.1 of 5 systems is none"),
        ((4, 0, 1), "the validation part of the split is empty: 0 of 5"),
        ((0.0, 2, 1), "the train part of the split is empty: 0.0 of 5"),
        ((4, 1, 1), r"asks for 6 systems \(train 4, validation 1, test 1\), but there are 5"),
        ((0.8, 0.2, 0.2), "asks for 6 systems"),
        ((1.5, 1, 1), "split train: 1.5 is neither a fraction such as 0.8 nor a count"),
        ((-1, 1, 1), "split train: -1"),
        ((float("nan"), 1, 1), "split train: nan"),
        ((True, 1, 1), "split train: True"),
    ],
)
def test_splits_that_cannot_be_say_which_part(parts, message):
    train, validation, test = parts
    with pytest.raises(DataError, match=message):
        split_systems(5, train=train, validation=validation, test=test)


def test_an_unknown_order_is_refused():
    with pytest.raises(DataError, match="'random' or 'file'"):
        split_systems(5, train=1, validation=1, test=1, order="time")
