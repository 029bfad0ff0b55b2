"""A user of http.client. python3 user.py PORT: each conversation, and then its name."""

import http.client
import io
import socket
import sys

PORT = int(sys.argv[1])


def connect():
    return http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)


def expect(response, body, **fields):
    got = response.read()
    assert response.status == 200, (response.status, got)
    assert got == body, (got[:100], body[:100])
    for name, value in fields.items():
        name = name.replace("_", "-")
        assert response.headers[name] == value, (name, response.headers.items())


def keep_alive():
    connection = connect()
    connection.request("GET", "/first")
    expect(connection.getresponse(), b"GET /first\n")
    first = connection.sock
    for number in range(20):
        connection.request("GET", f"/{number}")
        expect(connection.getresponse(), b"GET /%d\n" % number)
        connection.request("POST", "/post", body=b"x" * number * 1000)
        expect(connection.getresponse(), b"x" * number * 1000, x_framing="length")
    connection.request("HEAD", "/")
    expect(connection.getresponse(), b"")
    assert connection.sock is first, "it was never closed"


def chunked_upload():
    connection = connect()
    pieces = [bytes([65 + number]) * (number * 4000 + 1) for number in range(20)]
    connection.request("POST", "/chunks", body=iter(pieces))
    expect(connection.getresponse(), b"".join(pieces), x_framing="chunked")
    # A file has no length for http.client either.
    connection.request("PUT", "/file", body=io.StringIO("in a file\n" * 1000), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    expect(connection.getresponse(), b"in a file\n" * 1000, x_framing="chunked")


def expect_nothing():
    """Head and body in two segments, and nothing in between."""
    connection = connect()
    connection.putrequest("POST", "/late")
    connection.putheader("Content-Length", "6")
    connection.endheaders()
    connection.send(b"abc")
    connection.send(b"def")
    expect(connection.getresponse(), b"abcdef", x_framing="length")


class Shared:
    """A socket whose responses read from one buffer: they do not take what follows them away."""

    def __init__(self, stream):
        self.file = stream.makefile("rb")
        self.file.close, self.close = lambda: None, self.file.close

    def makefile(self, mode):
        return self.file


def pipelining():
    stream = socket.create_connection(("127.0.0.1", PORT), timeout=30)
    asked = [("GET", f"/{number}", b"") for number in range(10)]
    asked[3:3] = [("POST", "/body", b"between them"), ("HEAD", "/head", b""), ("GET", "/chunked", b"")]
    stream.sendall(b"".join(
        b"%s %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"
        % (method.encode(), path.encode(), len(body), body)
        for method, path, body in asked
    ))
    shared = Shared(stream)
    for method, path, body in asked:
        response = http.client.HTTPResponse(shared, method=method)
        response.begin()
        expect(response, {"POST": body, "HEAD": b""}.get(method, f"{method} {path}\n".encode()))
    shared.close()
    stream.close()


class Old(http.client.HTTPConnection):
    _http_vsn, _http_vsn_str = 10, "HTTP/1.0"


def http_1_0():
    connection = Old("127.0.0.1", PORT, timeout=30)
    connection.request("GET", "/old")
    response = connection.getresponse()
    expect(response, b"GET /old\n")
    assert response.isclosed() and connection.sock is None, "1.0 closes"
    connection.request("POST", "/old", body=b"body", headers={"Connection": "keep-alive"})
    expect(connection.getresponse(), b"body", connection="keep-alive")
    assert connection.sock is not None, "unless both want to go on"
    connection.request("GET", "/again", headers={"Connection": "keep-alive"})
    expect(connection.getresponse(), b"GET /again\n")


def chunked_for_http_1_0():
    """The origin's chunks are taken apart for a user who knows none; the end of the connection tells."""
    connection = Old("127.0.0.1", PORT, timeout=30)
    connection.request("GET", "/chunked", headers={"Connection": "keep-alive"})
    expect(connection.getresponse(), b"GET /chunked\n", transfer_encoding=None)
    assert connection.sock is None


def trailers():
    """http.client skips the trailer; what follows it must be found."""
    connection = connect()
    connection.request("GET", "/chunked")
    expect(connection.getresponse(), b"GET /chunked\n", transfer_encoding="chunked")
    connection.request("GET", "/next")
    expect(connection.getresponse(), b"GET /next\n")


for conversation in [
    keep_alive, chunked_upload, expect_nothing, pipelining, http_1_0, chunked_for_http_1_0, trailers,
]:
    conversation()
    print(conversation.__name__, flush=True)
