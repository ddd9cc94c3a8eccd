"""T08 to T10: what a person names is called at public addresses alone, over https, and at the very one that was checked."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app import fetch
from app.errors import StartupError
from app.fetch import AddressRefused, Limits, Unanswered, call, check_ip, read_address, read_allowed
from app.settings import Settings

PUBLIC = "93.184.215.14"


class TestReadAddress:
    def test_an_ordinary_address_is_read(self) -> None:
        address = read_address("https://models.example.org/v1/chat?x=1")
        assert (address.host, address.port, address.path) == ("models.example.org", 443, "/v1/chat?x=1")
        assert read_address("HTTPS://Models.Example.org.:8443").url == "https://models.example.org:8443/"

    @pytest.mark.parametrize(
        "url",
        [
            "http://models.example.org/v1",
            "file:///etc/passwd",
            "ftp://models.example.org/",
            "gopher://models.example.org:70/_x",
            "javascript:alert(1)",
            "//models.example.org/v1",
            "models.example.org/v1",
            "https:///v1",
            "https://",
            "",
            "https://user:secret@models.example.org/",
            "https://user@models.example.org/",
            "https://models.example.org@127.0.0.1/",
            "https://models.example.org/#x",
            "https://models.example.org:0/",
            "https://models.example.org:99999/",
            "https://models.example.org:8x/",
            "https://models.example.org\\@127.0.0.1/",
            "https://models.example.org /",
            "https://models.example.org/\r\nHost: x",
            "https://m\u00f6dels.example.org/",
            "https://[::1%25eth0]/",
            "https://[::1/",
            "https://-models-.example.org/",
            "https://models..example.org/",
            "https://" + "a" * 600,
            f"https://{'a' * 64}.example.org/",
        ],
    )
    def test_anything_else_is_refused(self, url: str) -> None:
        with pytest.raises(AddressRefused):
            read_address(url)

    @pytest.mark.parametrize(
        "host", ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.0x1", "1.2.3.4.5", "a.0x", "7"]
    )
    def test_a_number_in_disguise_is_refused(self, host: str) -> None:
        with pytest.raises(AddressRefused):
            read_address(f"https://{host}/")

    def test_plain_http_is_for_hosts_that_the_operator_named(self) -> None:
        allowed = read_allowed("models.internal:8000, [::1]:9000")
        assert read_address("http://models.internal:8000/v1", allowed).is_named
        assert read_address("http://[::1]:9000/", allowed).url == "http://[::1]:9000/"
        with pytest.raises(AddressRefused, match=r"models.internal:8001 in PREFERABLE_ALLOWED_HOSTS"):
            read_address("http://models.internal:8001/v1", allowed)


class TestReadAllowed:
    @pytest.mark.parametrize(
        "text", ["*", "*:443", "*.internal:80", "models", "models:", "models:0", ":80", "a b:80", "0.0.0.0/0:80"]
    )
    def test_names_hosts_and_no_patterns(self, text: str) -> None:
        with pytest.raises(ValueError, match="host:port"):
            read_allowed(text)

    def test_a_wrong_setting_stops_the_start(self) -> None:
        with pytest.raises(StartupError, match="PREFERABLE_ALLOWED_HOSTS"):
            fetch.allowed_hosts(Settings(allowed_hosts="*"))
        assert fetch.allowed_hosts(Settings()) == frozenset()


class TestCheckIp:
    def test_public_addresses_pass(self) -> None:
        assert check_ip(PUBLIC) == PUBLIC
        assert check_ip("2606:2800:21f:cb07:6820:80da:af6b:8b2c")

    @pytest.mark.parametrize(
        "ip",
        [
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:0:7f00:1::",
            "fec0::1",
            "::7f00:1",
            "::ffff:0:7f00:1",
            "64:ff9b:1::7f00:1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "4000::1",
            "100::1",
            "fe80::1%eth0",
            "no address",
        ],
    )
    def test_no_other_address_passes(self, ip: str) -> None:
        with pytest.raises(AddressRefused):
            check_ip(ip)

    @pytest.mark.parametrize(
        "ip",
        [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "::ffff:0:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "0.0.0.0",
            "fe80::1",
            "224.0.0.1",
        ],
    )
    def test_where_clouds_keep_keys_is_refused_even_by_name(self, ip: str) -> None:
        with pytest.raises(AddressRefused):
            check_ip(ip, is_named=True)

    def test_a_named_host_may_be_private(self) -> None:
        assert check_ip("::ffff:10.0.0.1", is_named=True) == "10.0.0.1"


Handler = Callable[[socket.socket], None]


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server with a certificate of that name, and of a client that believes who signed it: the server itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "pair.pem").write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "pair.pem")
    return serving, ssl.create_default_context(cadata=made.public_bytes(serialization.Encoding.PEM).decode())


@contextmanager
def server(handle: Handler, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on loopback that treats each connection so; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def serve() -> None:
            try:
                while True:
                    accepted, _ = listening.accept()
                    with accepted, suppress(ssl.SSLError, ConnectionError):
                        connection = tls.wrap_socket(accepted, server_side=True) if tls else accepted
                        connection.recv(65536)
                        handle(connection)
                        connection.close()
            except OSError:
                return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]


def answering(*parts: bytes, pause: float = 0.0) -> Handler:
    def handle(connection: socket.socket) -> None:
        for part in parts:
            try:
                connection.sendall(part)
            except OSError:
                return
            time.sleep(pause)

    return handle


def ok(body: bytes, *headers: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"HTTP/1.1 200 OK", length, *headers, b"", body])


def named(port: int, path: str = "/") -> fetch.Address:
    return read_address(f"http://127.0.0.1:{port}{path}", {("127.0.0.1", port)})


class TestCall:
    def test_an_answer_comes_back(self) -> None:
        with server(answering(ok(b"hello", b"X-Name: value"))) as port:
            reply = call("POST", named(port), content=b"{}")
        assert (reply.status, reply.body, reply.headers["x-name"]) == (200, b"hello", "value")

    def test_a_redirect_is_not_followed(self) -> None:
        moved = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
        with server(answering(moved)) as port, pytest.raises(AddressRefused, match="redirects elsewhere"):
            call("GET", named(port))

    def test_what_is_private_by_name_is_refused_before_anything_is_sent(self) -> None:
        linked: list[str] = []

        def link(ip: str, port: int, timeout: float) -> httpcore.NetworkStream:
            linked.append(ip)
            raise AssertionError

        address = read_address("https://models.example.org/v1")
        for found in (["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["::ffff:127.0.0.1"]):
            with pytest.raises(AddressRefused, match="not a public address"):
                call("GET", address, find=lambda host, port, found=found: found, link=link)
        assert linked == []

    def test_a_name_that_changes_its_address_is_asked_once(self) -> None:
        """DNS rebinding: public when it is looked at, private a moment later."""
        answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])
        asked: list[str] = []
        linked: list[tuple[str, int]] = []

        def find(host: str, port: int) -> Sequence[str]:
            asked.append(host)
            return next(answers)

        def link(ip: str, port: int, timeout: float) -> httpcore.NetworkStream:
            linked.append((ip, port))
            raise httpcore.ConnectError("nobody is there")

        with pytest.raises(Unanswered, match="cannot be called"):
            call("GET", read_address("https://models.example.org/v1"), find=find, link=link)
        assert asked == ["models.example.org"]
        assert linked == [(PUBLIC, 443)]

    def test_the_certificate_is_of_the_name_and_not_of_where_it_leads(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The pinned address speaks TLS: it is believed for the name it has a certificate of, and for no other."""
        serving, trusting = certified(tmp_path, "models.example.org")
        monkeypatch.setattr(fetch, "_trusted", lambda: trusting)

        def ask(host: str, port: int) -> fetch.Reply:
            return call(
                "GET",
                read_address(f"https://{host}:{port}/"),
                find=lambda *_: [PUBLIC],
                link=lambda ip, number, timeout: fetch.connect("127.0.0.1", number, timeout),
            )

        with server(answering(ok(b"it is me")), serving) as port:
            assert ask("models.example.org", port).body == b"it is me"
            with pytest.raises(Unanswered, match="cannot be called"):
                ask("other.example.org", port)

    def test_a_server_that_speaks_no_tls_is_not_believed(self) -> None:
        with server(answering(b"this is no TLS")) as port, pytest.raises(Unanswered):
            call(
                "GET",
                read_address(f"https://models.example.org:{port}/"),
                find=lambda *_: [PUBLIC],
                link=lambda ip, number, timeout: fetch.connect("127.0.0.1", number, timeout),
            )

    def test_a_huge_body_is_cut_off(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        with (
            server(answering(head, *[chunk] * 100)) as port,
            pytest.raises(Unanswered, match="more than 100,000 bytes"),
        ):
            call("GET", named(port), limits=Limits(seconds=10, body_bytes=100_000))

    def test_huge_headers_are_cut_off(self) -> None:
        head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (at, b"y" * 1000) for at in range(500))
        with server(answering(head)) as port, pytest.raises(Unanswered):
            call("GET", named(port), limits=Limits(seconds=10))

    @pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"], ids=["headers", "body"])
    def test_what_trickles_in_ends_with_the_time(self, head: bytes) -> None:
        begun = time.monotonic()
        drops = answering(head, *[b"H"] * 100, pause=0.05)
        with server(drops) as port, pytest.raises(Unanswered):
            call("GET", named(port), limits=Limits(seconds=0.5))
        assert time.monotonic() - begun < 3

    def test_nobody_there_and_no_such_name(self) -> None:
        with server(answering()) as port:
            pass
        with pytest.raises(Unanswered, match="cannot be called"):
            call("GET", named(port))

        def find(host: str, port: int) -> Sequence[str]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        with pytest.raises(Unanswered, match="is not found"):
            call("GET", read_address("https://models.example.org/"), find=find)

    def test_a_resolver_that_is_silent_ends_with_the_time(self) -> None:
        over = threading.Event()

        def find(host: str, port: int) -> Sequence[str]:
            over.wait(5)
            return [PUBLIC]

        begun = time.monotonic()
        with pytest.raises(Unanswered, match="not found in time"):
            call("GET", read_address("https://models.example.org/"), find=find, limits=Limits(seconds=0.2))
        assert time.monotonic() - begun < 2
        over.set()

    def test_a_compressed_answer_is_not_unpacked(self) -> None:
        packed = answering(ok(b"\x1f\x8b", b"Content-Encoding: gzip"))
        with server(packed) as port, pytest.raises(Unanswered, match="compressed"):
            call("GET", named(port))

    def test_a_proxy_of_the_environment_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        with server(answering(ok(b"direct"))) as port:
            assert call("GET", named(port)).body == b"direct"
