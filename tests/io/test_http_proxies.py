"""The proxy of the environment, whatever it is at the moment of a request."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from urllib3 import ProxyManager

from astroquery_lis import conf
from astroquery_lis.exceptions import ServiceDownError, ServiceTimeoutError, TransferError
from astroquery_lis.io.http import HttpClient, PoliteSession, map_errors

URL = "http://survey.example/file"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def _of_client(url):
    return HttpClient(retries=0, timeout_s=30).read(url, 1e6)


def _of_session(url):
    with map_errors(url), PoliteSession(retries=0, timeout_s=30) as session:
        answer = session.get(url)
        answer.raise_for_status()
        return answer.content


class _Proxy(BaseHTTPRequestHandler):
    """Answers for every host with what it was asked for, if it is told user and password."""

    def do_GET(self):
        due = f"Basic {base64.b64encode(b'me:s e').decode()}"
        is_let_in = self.headers["Proxy-Authorization"] == due
        body = self.path.encode()
        self.send_response(200 if is_let_in else 407)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:1])
        if self.path.endswith("silent"):
            self.server.over.wait(60)
        self.wfile.write(body[1:])

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def proxy():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Proxy) as server:
        server.over = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("ask", [_of_client, _of_session])
@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_is_told_the_password_in_its_address(monkeypatch, proxy, ask, variable):
    monkeypatch.setenv(variable, f"http://me:s%20e@{proxy}")
    assert ask(URL) == URL.encode()
    for scheme in ("http://", "http://me:wrong@", ""):
        monkeypatch.setenv(variable, f"{scheme}{proxy}")
        with pytest.raises(TransferError, match="HTTP 407") as caught:
            ask(URL)
        assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("ask", [_of_client, _of_session])
def test_what_comes_through_a_proxy_is_bounded_too(monkeypatch, proxy, ask):
    monkeypatch.setenv("http_proxy", f"http://me:s%20e@{proxy}")
    with conf.set_temp("deadline", 0.5), pytest.raises(ServiceTimeoutError, match=r"deadline=0\.5"):
        ask(f"{URL}/silent")


@pytest.mark.parametrize("ask", [_of_client, _of_session])
@pytest.mark.parametrize("proxy_url", ["socks5://127.0.0.1:9", "http://", "nonsense://a:1"])
def test_a_proxy_that_is_none_is_an_error_of_the_package(monkeypatch, ask, proxy_url):
    monkeypatch.setenv("http_proxy", proxy_url)
    with pytest.raises(TransferError) as caught:
        ask(URL)
    assert caught.value.url == URL


@pytest.mark.parametrize("no_proxy", ["127.0.0.0/8", "127.0.0.1", "*"])
def test_hosts_that_need_none_are_asked_directly(monkeypatch, proxy, no_proxy):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", no_proxy)
    for ask in (_of_client, _of_session):
        with pytest.raises(TransferError, match="HTTP 407"):
            ask(f"http://{proxy}/file")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8,survey.example")
    with pytest.raises(ServiceDownError, match="refused"):
        _of_client(f"http://{proxy}/file")


def test_a_proxy_that_is_set_later_counts(monkeypatch):
    client, url = HttpClient(), "http://survey.example/file"
    assert not isinstance(client._pool(url), ProxyManager)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    pool = client._pool(url)
    assert isinstance(pool, ProxyManager)
    assert pool.proxy.port == 3128
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3129")
    assert client._pool(url).proxy.port == 3129
    monkeypatch.setenv("no_proxy", "survey.example")
    assert not isinstance(client._pool(url), ProxyManager)
