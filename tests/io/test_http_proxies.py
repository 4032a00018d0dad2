"""The proxy of the environment, whatever it is at the moment of a request."""

from urllib3 import ProxyManager

from astroquery_lis.io.http import HttpClient


def test_a_proxy_that_is_set_later_counts(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
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
