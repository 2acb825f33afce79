import numpy as np
import pytest

from medbolt.core.data.npz import array_shape, read_array
from medbolt.core.errors import UserError


@pytest.fixture
def file(tmp_path):
    np.savez_compressed(tmp_path / "all.npz", images=np.arange(24).reshape(2, 3, 4), masks=np.zeros(2))
    return tmp_path / "all.npz"


def test_an_array_and_its_shape(file):
    assert (read_array(file, "images") == np.arange(24).reshape(2, 3, 4)).all()
    assert array_shape(file, "images") == (2, 3, 4)


def test_array_names_are_suggested(file):
    with pytest.raises(UserError, match=r"has no array 'image' \(did you mean 'images'\?\); it has 'images', 'masks'"):
        read_array(file, "image")


def test_pickled_objects_are_never_loaded(tmp_path):
    np.savez(tmp_path / "objects.npz", images=np.array([{"a": 1}], dtype=object))
    for use in (array_shape, read_array):
        with pytest.raises(UserError, match="array 'images' of .*objects.npz holds pickled Python objects"):
            use(tmp_path / "objects.npz", "images")


def test_an_array_needs_rows(tmp_path):
    np.savez(tmp_path / "number.npz", images=np.array(3))
    with pytest.raises(UserError, match="is a single number; save one row a picture"):
        array_shape(tmp_path / "number.npz", "images")


def test_a_damaged_array_is_told(file):
    content = file.read_bytes()
    file.write_bytes(content.replace(content[60:90], bytes(30)))
    with pytest.raises(UserError, match="all.npz is no readable npz file|array 'images' of .*all.npz is damaged"):
        read_array(file, "images")


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="there is no archive .*no.npz"):
        read_array(tmp_path / "no.npz", "images")
