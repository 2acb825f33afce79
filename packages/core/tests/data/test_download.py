import hashlib
import socketserver
import threading

import pytest

from medbolt.core.data.download import download
from medbolt.core.errors import UserError

CONTENT = bytes(range(256)) * 10_000


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source.bin").write_bytes(CONTENT)
    return f"file://{tmp_path}/source.bin"


def test_a_file_is_fetched_into_new_folders(source, tmp_path):
    target = tmp_path / "a/b/target.bin"
    download(source, target, hashlib.md5(CONTENT).hexdigest())
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["target.bin"]


def test_a_wrong_checksum_leaves_the_old_file_alone(source, tmp_path):
    target = tmp_path / "target.bin"
    target.write_bytes(b"old")
    with pytest.raises(UserError, match=r"has MD5 .* instead of 0000; try again, or fetch it by hand to .*target.bin"):
        download(source, target, "0000")
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.bin", "target.bin"]


def test_a_transfer_that_breaks_off_is_told(tmp_path):
    class Breaks(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(4096)
            self.request.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 10)

    with socketserver.TCPServer(("127.0.0.1", 0), Breaks) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match="broke off; try again|IncompleteRead"):
            download(f"http://127.0.0.1:{server.server_address[1]}/a", tmp_path / "a")
        server.shutdown()
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_leads_nowhere(tmp_path):
    with pytest.raises(UserError, match="cannot be downloaded to .*a .*; try again, or fetch it by hand"):
        download("http://127.0.0.1:9/a", tmp_path / "a")


def test_a_folder_that_cannot_be_made(source, tmp_path):
    with pytest.raises(UserError, match="cannot write .*source.bin/a.*; choose a writable folder"):
        download(source, tmp_path / "source.bin/a")
