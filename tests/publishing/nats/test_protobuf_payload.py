"""Messages of any protobuf type, by descriptors out of a file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc

from noti.errors import ConfigInvalid, MessageInvalid, TooLarge
from noti.publishing.events import EVENT_BYTES_MAX
from noti.publishing.nats.content import MessageContent
from noti.publishing.nats.ports import SourceMessage
from noti.publishing.nats.protobuf_payload import ProtobufDecoder

ORDER = """
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/any.proto";
enum State { OPEN = 0; PAID = 1; }
message Order {
  uint64 order_id = 1;
  string user_name = 2;
  State state = 3;
  google.protobuf.Timestamp paid_at = 4;
  repeated Order parts = 5;
  map<string, double> prices = 6;
  google.protobuf.Any extra = 7;
  bytes raw = 8;
  repeated bool flags = 9;
}
"""


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proto")
    (folder / "order.proto").write_text(ORDER)
    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{folder}", f"-I{well_known}", "--include_imports"]
    arguments += [f"--descriptor_set_out={folder / 'order.pb'}", str(folder / "order.proto")]
    assert protoc.main(["protoc", *arguments]) == 0
    return folder / "order.pb"


@pytest.fixture(scope="module")
def decoder(descriptors: Path) -> ProtobufDecoder:
    return ProtobufDecoder(descriptors, "shop.v1.Order")


def order(descriptors: Path, **fields: object) -> bytes:
    pool = DescriptorPool()
    for one in FileDescriptorSet.FromString(descriptors.read_bytes()).file:
        pool.Add(one)
    made = GetMessageClass(pool.FindMessageTypeByName("shop.v1.Order"))(**fields)
    return bytes(made.SerializeToString())


def read(decoder: ProtobufDecoder, payload: bytes) -> MessageContent:
    return decoder(SourceMessage(1, "a", payload), 0)


def test_message_becomes_json_with_its_own_names(
    descriptors: Path, decoder: ProtobufDecoder
) -> None:
    payload = order(
        descriptors,
        order_id=2**60,
        user_name="é",
        state=1,
        paid_at={"seconds": 1},
        prices={"a": 1.5},
        parts=[{"order_id": 2}],
    )
    content = read(decoder, payload)
    value = json.loads(content.data)
    assert (value["order_id"], value["user_name"], value["state"]) == (str(2**60), "é", "PAID")
    assert (value["paid_at"], value["prices"]) == ("1970-01-01T00:00:01Z", {"a": 1.5})
    assert value["parts"][0]["order_id"] == "2"
    assert content.fields == value


def test_fields_that_are_not_set_have_their_defaults(decoder: ProtobufDecoder) -> None:
    value = json.loads(read(decoder, b"").data)
    assert (value["order_id"], value["user_name"], value["parts"]) == ("0", "", [])


@pytest.mark.parametrize(
    "payload",
    [
        b"\x0a",  # cut off
        b"\x12\x02\xff\xfe",  # not UTF-8
        b"{}",
        b"\x2a\x82\x01" * 2000,
        b"".join(b"\x2a" + bytes([n]) for n in range(120, 0, -2)),
        b"\x22\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a time beyond any calendar
        b"\x3a\x10\x0a\x0ea.b/none.Absent",  # Any of a type that is not there
        b"\x32\x0b\x0a\x01a\x11\xff",
    ],
)
def test_payload_that_is_no_such_message_is_invalid(
    payload: bytes, decoder: ProtobufDecoder
) -> None:
    with pytest.raises(MessageInvalid, match=r"shop\.v1\.Order") as caught:
        read(decoder, payload)
    assert "\n" not in str(caught.value)


def test_message_that_would_become_too_much_json_is_too_large(decoder: ProtobufDecoder) -> None:
    """Half a megabyte of empty messages, and a megabyte of one bit each."""
    for payload in (b"\x2a\x00" * (EVENT_BYTES_MAX // 2), b"\x4a\xc0\x84\x3d" + bytes(1_000_000)):
        with pytest.raises(TooLarge, match="over 100000 values"):
            read(decoder, payload)
    with pytest.raises(TooLarge, match="bytes"):
        read(decoder, bytes(EVENT_BYTES_MAX + 1))


def test_message_nested_beyond_reason_is_invalid(decoder: ProtobufDecoder) -> None:
    payload = b""
    for _ in range(300):
        size = len(payload)
        head = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
        payload = b"\x2a" + head + payload
    with pytest.raises(MessageInvalid):
        read(decoder, payload)


def test_unknown_message_and_bad_file_are_told_with_the_remedy(
    descriptors: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigInvalid, match=r"'Order' is not in .*name it with its package"):
        ProtobufDecoder(descriptors, "Order")
    file = tmp_path / "x.pb"
    for content, told in [(b"", "is empty"), (b"\xff", "is none"), (b"syntax = 1;", "is none")]:
        file.write_bytes(content)
        with pytest.raises(ConfigInvalid, match=rf"{told}; make it with protoc"):
            ProtobufDecoder(file, "a.B")
    alone = FileDescriptorSet.FromString(descriptors.read_bytes())
    file.write_bytes(FileDescriptorSet(file=alone.file[-1:]).SerializeToString())
    with pytest.raises(ConfigInvalid, match=r"order\.proto: .*--include_imports"):
        ProtobufDecoder(file, "shop.v1.Order")


def test_descriptors_in_a_pipe_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file in (pipe, Path("/dev/zero")):
        with pytest.raises(ConfigInvalid, match="is no regular file"):
            ProtobufDecoder(file, "a.B")


def test_library_is_loaded_only_where_it_is_configured() -> None:
    program = (
        "import sys, noti.publishing.nats.mapping;"
        "sys.exit(str([name for name in sys.modules if name.startswith('google.protobuf')]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == "[]\n"
