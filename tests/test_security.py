"""What keeps strangers out: headers, origins, paths that stay in their folder, logs without secrets."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from by_hand import handshake
from conftest import KEYS, configured, write_keys
from serving import serving

from kickserve.middleware import SecurityHeaders, with_nonce

ROOT = Path(__file__).parent.parent
POLICY = "content-security-policy"


class TestHeaders:
    async def test_every_answer_says_that_it_is_what_it_says(self, client, kick):
        for answer in [
            await client.post("/predict", json=kick),
            await client.post("/predict", content=b"{"),
            await client.get("/predictions"),
            await client.get("/nowhere"),
            await client.get("http://test/docs"),
            await client.get("http://test/docs-assets/swagger-ui.css"),
            await client.get("http://test/ui"),
        ]:
            assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
            assert "strict-transport-security" not in answer.headers

    async def test_pages_say_what_they_may_load_and_who_may_frame_them(self, client):
        nonces = set()
        for _ in range(2):
            answer = await client.get("http://test/docs")
            policy = dict(each.strip().split(" ", 1) for each in answer.headers[POLICY].split(";"))
            assert policy["default-src"] == policy["base-uri"] == "'none'"
            assert policy["frame-ancestors"] == policy["form-action"] == policy["connect-src"] == "'self'"
            assert "unsafe" not in policy["script-src"]
            [nonce] = re.findall("'nonce-(.*?)'", policy["script-src"])
            scripts = re.findall(r"<script[^>]*>", answer.text)
            assert scripts
            assert all(f'nonce="{nonce}"' in each for each in scripts)
            nonces.add(nonce)
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert answer.headers["referrer-policy"] == "same-origin"
            assert "camera=()" in answer.headers["permissions-policy"]
        assert len(nonces) == 2

    async def test_the_settings_say_who_may_frame_it_and_that_there_is_tls(self, start, settings):
        own = replace(settings, frame_ancestors=("https://huggingface.co",), hsts=timedelta(days=365))
        answer = await (await start(own)).get("http://test/docs")
        assert answer.headers[POLICY].endswith("frame-ancestors 'self' https://huggingface.co")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"

    async def test_what_is_kept_is_not_kept_on_the_way(self, start, settings):
        client = await start(replace(settings, api_key="sesame"))
        answer = await client.get("/predictions", headers={"X-API-Key": "sesame"})
        assert answer.headers["cache-control"] == "no-store"
        assert "cache-control" not in (await client.get("/health/live")).headers

    def test_a_nonce_is_given_to_scripts_alone(self):
        page = b"<p>&lt;script&gt;</p><script>a</script><script type='module' src='b'></script>"
        assert with_nonce(page, "n").count(b'nonce="n"') == 2


class TestOrigins:
    @pytest.mark.parametrize(
        ("origins", "headers", "ours"),
        [
            (None, {}, True),
            (None, {"origin": "http://here.org", "host": "here.org"}, True),
            (None, {"origin": "https://here.org:8443", "host": "here.org:8443"}, True),
            (None, {"origin": "https://here.org", "host": "127.0.0.1", "x-forwarded-host": "here.org"}, True),
            (None, {"origin": "https://there.org", "host": "here.org"}, False),
            (None, {"origin": "https://here.org.there.org", "host": "here.org"}, False),
            (None, {"origin": "http://here.org:81", "host": "here.org"}, False),
            (None, {"origin": "null", "host": "here.org"}, False),
            (None, {"origin": "null", "host": ""}, False),
            (None, {"origin": "", "host": "here.org"}, False),
            (None, {"origin": "http://[", "host": "here.org"}, False),  # no address at all
            (("https://there.org",), {"origin": "https://there.org", "host": "here.org"}, True),
            (("https://there.org",), {"origin": "http://there.org", "host": "here.org"}, False),
            (("*",), {"origin": "https://there.org", "host": "here.org"}, True),
        ],
    )
    def test_whose_page_asks(self, settings, origins, headers, ours):
        shield = SecurityHeaders(replace(settings, cors_origins=origins))
        assert (
            shield.is_same_origin({name.encode(): value.encode() for name, value in headers.items()}) is ours
        )

    async def test_without_a_key_a_foreign_page_can_read_but_change_nothing(self, client, kick):
        foreign = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
        assert (await client.post("/predict", json=kick, headers=foreign)).status_code == 403
        for path in ("/model/reload", "/drift/reports", "/profile?seconds=0.1", "/predict/batch"):
            answer = await client.post(path, content=b"", headers=foreign)
            assert answer.status_code == 403
            assert "KICKSERVE_CORS_ORIGINS" in answer.json()["detail"]
        answer = await client.get("/predictions", headers=foreign)
        assert "access-control-allow-origin" not in answer.headers  # so the page does not see it
        assert answer.json() == []

    def test_a_websocket_is_for_our_own_pages(self, tmp_path):
        with serving(tmp_path, KICKSERVE_CORS_ORIGINS="https://friend.example") as server:
            url = httpx.URL(server.url)
            own = f"http://127.0.0.1:{url.port}"
            for origin, status in [
                (own, 101),
                (None, 101),
                ("https://friend.example", 101),
                ("https://evil.example", 403),
                ("null", 403),
            ]:
                assert handshake(url.port, "/ui/_nicegui_ws/socket.io/", origin) == status
            polling = f"{own}/ui/_nicegui_ws/socket.io/?EIO=4&transport=polling"
            assert httpx.get(polling).status_code == 200
            assert httpx.get(polling, headers={"Origin": "https://evil.example"}).status_code == 403
            form = {"data": {"key": "a"}, "headers": {"Origin": "https://evil.example"}}
            assert httpx.post(f"{own}/ui/sign-in", **form).status_code == 403
            assert server.end() == 0


class TestPaths:
    @pytest.fixture
    async def rooms(self, start, settings, tmp_path):
        """A service with a folder of reports, and secrets beside it."""
        reports = tmp_path / "reports"
        reports.mkdir()
        (tmp_path / "secret.html").write_text("the secret")
        (tmp_path / "drift-20260101T000000000000Z.json").write_text('"the secret"')
        (reports / "other.html").write_text("the secret")
        (reports / "drift-20260101T000000000000Z.html").symlink_to(tmp_path / "secret.html")
        (reports / "drift-20260101T000000000001Z.json").symlink_to(tmp_path / "secret.html")
        (reports / "drift-20260101T000000000002Z.html").write_text("a report")
        return await start(configured(settings, KICKSERVE_REPORTS=str(reports)))

    @pytest.mark.parametrize(
        "name",
        [
            "../secret.html",
            "..%2fsecret.html",
            "%2e%2e/secret.html",
            "%2e%2e%2fsecret.html",
            "..%5csecret.html",
            "%252e%252e%252fsecret.html",
            "..%2fdrift-20260101T000000000000Z.json",
            "%2fetc%2fpasswd",
            "//etc/passwd",
            "other.html",
            "drift-20260101T000000000002Z.html%00.json",
            "%00",
            "drift-20260101T000000000002Z.html%0a",
            "drift-20260101T000000000000Z.html",  # leads out of the folder
            "drift-20260101T000000000001Z.json",
            ".evaluate.log",
        ],
    )
    async def test_nothing_but_reports_of_the_folder_is_handed_out(self, rooms, name):
        answer = await raw(rooms.app, f"/api/v1/drift/reports/{name}")
        assert answer[0] == 404
        assert b"the secret" not in answer[1]
        assert (await raw(rooms.app, "/api/v1/drift/reports/drift-20260101T000000000002Z.html"))[
            1
        ] == b"a report"

    async def test_a_report_is_shut_in(self, rooms):
        answer = await rooms.get("/drift/reports/drift-20260101T000000000002Z.html")
        assert answer.headers[POLICY].startswith("sandbox allow-scripts; default-src 'none'")

    @pytest.mark.parametrize("base", ["/docs-assets", "/ui/_nicegui/3.0.0/static", "/ui"])
    @pytest.mark.parametrize(
        "path",
        ["../__init__.py", "%2e%2e/__init__.py", "..%2f__init__.py", "%2fetc%2fpasswd", "%00", "a" * 300],
    )
    async def test_files_of_pages_stay_in_their_folder(self, client, base, path):
        status, body = await raw(client.app, f"{base}/{path}")
        assert status in {400, 404}
        assert b"from __future__" not in body
        assert b"root:" not in body

    def test_the_profile_of_a_request_lies_in_its_folder_whatever_was_asked_for(self, tmp_path):
        folder = tmp_path / "profiles"
        with serving(tmp_path, KICKSERVE_PROFILE_EVERY="1", KICKSERVE_PROFILE_DIR=str(folder)) as server:
            port = httpx.URL(server.url).port
            for path in ("/../../x", "/%2e%2e/%2e%2e/x", "/api/v1/predictions/..%2f..%2fx", "/%00/x"):
                assert handshake(port, path, None) in {400, 403, 404}
                plain = {"X-Request-ID": "../../x"}
                assert httpx.get(f"http://127.0.0.1:{port}{path}", headers=plain).status_code in {400, 404}
            assert server.end() == 0
        assert {each.name.partition(".")[0] for each in tmp_path.iterdir()} == {
            *("kickserve", "kickserve-journal", "profiles")
        }
        assert all(each.is_file() for each in folder.iterdir())


async def raw(app, path):
    """Ask for a path as it stands: clients tidy it up."""
    from urllib.parse import unquote

    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
        "root_path": "",
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:])


class TestSql:
    @pytest.mark.parametrize(
        "text", ["' OR 1=1 --", "'; DROP TABLE predictions; --", '" OR ""="', "\\'", "%"]
    )
    async def test_what_looks_like_sql_is_text(self, client, kick, text):
        await client.post("/predict", json=kick)
        for answer in [
            await client.get(f"/predictions/{text}"),
            await client.delete(f"/predictions/{text}"),
            await client.put(f"/predictions/{text}/outcome", json={"success": True}),
        ]:
            assert answer.status_code == 404
        for name in ("before", "since", "until", "limit"):
            assert (await client.get("/predictions", params={name: text})).status_code == 422
        answer = await client.put("/predictions/outcomes", json=[{"id": text, "success": True}])
        assert answer.json() == {"kept": 0, "unknown": [text]}
        assert (await client.get("/quality", params={"model": text})).status_code == 200
        assert len((await client.get("/predictions")).json()) == 1


SECRETS = {
    "API_KEY": "open-sesame-4711",
    "HF_TOKEN": "hf_open_barley_4712",
    "KICKSERVE_DRIFT_SECRET": "drift-sesame-4713",
    "KICKSERVE_EVIDENTLY_KEY": "evidently-sesame-4714",
}
PASSWORD = "p%40ss-sesame-4715"


class TestLogs:
    @pytest.mark.parametrize("log", ["json", "console"])
    def test_no_secret_is_in_them_whatever_goes_wrong(self, tmp_path, kick, log):
        with webhook() as hook, away() as port:
            environment = {
                **SECRETS,
                "DATABASE_URL": f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/kicks",
                "KICKSERVE_DRIFT_WEBHOOK": f"{hook}/token-sesame-4716",
                "KICKSERVE_KEYS": write_keys(tmp_path / "keys.json"),
                "DEBUG": "1",
                "KICKSERVE_LOG": log,
                "KICKSERVE_SHUTDOWN_TIMEOUT": "1",
            }
            with serving(tmp_path, **environment) as server:
                for key in (SECRETS["API_KEY"], KEYS["predict"], "wrong-sesame-4717"):
                    for method, path in [("POST", "/predict"), ("GET", "/predictions"), ("GET", "/nowhere")]:
                        for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}):
                            url = f"{server.url}{path}?api_key={key}&limit=oops"
                            httpx.request(method, url, json=kick, headers=headers)
                (tmp_path / "keys.json").write_text(f'{{"keys": ["{KEYS["admin"]}"]}}')
                httpx.get(f"{server.url}/health", headers={"X-API-Key": SECRETS["API_KEY"]})
                server.process.send_signal(1)  # SIGHUP: loads the model anew
                within_log(server, "the keys before stay")
                server.end()
            said = "".join(server.log)
        assert "POST /api/v1/predict" in said  # it did say something
        assert "api_key=(hidden)" in said
        assert "sesame" not in said
        assert "barley" not in said
        assert not any(key in said for key in KEYS.values())

    def test_nor_in_what_a_server_says_that_can_t_start(self, tmp_path):
        url = f"postgresql://me:{PASSWORD}@127.0.0.1:1/kicks?sslmode=nonsense"
        for changes in (
            {"DATABASE_URL": url},
            {"KICKSERVE_PORT": "x"},
            {"KICKSERVE_DRIFT_WEBHOOK": "sesame-4718"},
        ):
            with pytest.raises(RuntimeError) as failure, serving(tmp_path, **{**SECRETS, **changes}):
                pass
            assert "Error" in str(failure.value)
            assert "sesame" not in str(failure.value)


def within_log(server, text):
    import time

    end = time.monotonic() + 10
    while not any(text in line for line in server.log):
        assert time.monotonic() < end
        time.sleep(0.1)


@contextmanager
def webhook():
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_error(500)

        def log_message(self, *_):
            pass

    yield from listening(Refusing)


@contextmanager
def away():
    """A port where nobody answers."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def listening(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestAudit:
    """The script asks a stand-in of OSV, by its real protocol, with the real pip-audit."""

    @pytest.fixture
    def osv(self):
        class Knows(http.server.BaseHTTPRequestHandler):
            bad = ""

            def do_POST(self):
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["package"]["name"]
                events = [{"introduced": "0"}, {"fixed": "999.0"}]
                affected = {
                    "package": {"name": asked, "ecosystem": "PyPI"},
                    "ranges": [{"type": "ECOSYSTEM", "events": events}],
                }
                found = {"id": "OSV-1", "summary": "bad", "details": "bad", "affected": [affected]}
                body = json.dumps({"vulns": [found]} if asked == self.bad else {}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        with contextmanager(listening)(Knows) as url:
            yield Knows, url

    def audit(self, url, **environment):
        command = [sys.executable, str(ROOT / "ops" / "audit.py"), "--vulnerability-service", "osv"]
        done = subprocess.run(
            [*command, "--osv-url", f"{url}/v1/query"],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        return done.returncode, done.stdout

    def test_says_what_is_vulnerable_and_what_is_not_known(self, osv):
        knows, url = osv
        code, said = self.audit(url)
        assert code == 0
        assert "0 of them vulnerable" in said
        knows.bad = "msgspec"
        code, said = self.audit(url)
        assert code == 1
        assert re.search(r"msgspec \S+: OSV-1, mended in 999\.0", said)
        with away() as port:
            code, said = self.audit(f"http://127.0.0.1:{port}")
            assert code == 0
            assert "nothing could be looked up" in said
            assert self.audit(f"http://127.0.0.1:{port}", AUDIT="required")[0] == 3
