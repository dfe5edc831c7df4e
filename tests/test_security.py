"""What keeps strangers out: headers, origins, paths that stay in their folder, logs without secrets."""

from __future__ import annotations

import re
import socket
from contextlib import contextmanager
from urllib.parse import unquote

import httpx
import pytest
from by_hand import handshake, site
from conftest import KEYS, configured, write_keys
from serving import NotStarted, serving, until

from kickserve.cli import run

POLICY = "content-security-policy"


class TestHeaders:
    async def test_every_answer_forbids_to_guess_its_type(self, client, kick):
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

    async def test_pages_name_the_scripts_and_frames_that_they_allow(self, client):
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

    async def test_settings_allow_frames_and_demand_tls(self, start, settings):
        own = configured(settings, KICKSERVE_FRAME_ANCESTORS="https://huggingface.co", KICKSERVE_HSTS="365d")
        answer = await (await start(own)).get("http://test/docs")
        assert answer.headers[POLICY].endswith("frame-ancestors 'self' https://huggingface.co")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"

    async def test_predictions_are_kept_by_no_cache(self, start, settings):
        client = await start(configured(settings, API_KEY="sesame"))
        answer = await client.get("/predictions", headers={"X-API-Key": "sesame"})
        assert answer.headers["cache-control"] == "no-store"
        assert "cache-control" not in (await client.get("/health/live")).headers


class TestHosts:
    """Without a key, a page whose name resolves to 127.0.0.1 (DNS rebinding) must not be of our origin."""

    OURS = ("localhost", "LOCALHOST:7860", "a.localhost", "127.0.0.1:7860", "127.8.8.8", "[::1]:7860", "::1")
    FOREIGN = (
        "evil.example",
        "evil.example:7860",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.1",
    )
    CALLS = (
        *(
            ("POST", "/api/v1/predict"),
            ("POST", "/api/v1/explain"),
            ("DELETE", f"/api/v1/predictions/{'0' * 8}"),
        ),
        *(("POST", "/api/v1/model/reload"), ("POST", "/api/v1/profile"), ("GET", "/api/v1/health/live")),
        *(("GET", "/"), ("GET", "/docs"), ("GET", "/metrics"), ("GET", "/ui"), ("GET", "/nowhere")),
    )

    async def test_without_a_key_only_names_of_this_machine_are_answered(self, client, kick):
        for host in self.FOREIGN:
            for method, path in self.CALLS:
                answer = await client.request(method, f"http://test{path}", json=kick, headers={"Host": host})
                assert answer.status_code == 403, (host, path)
                assert "KICKSERVE_ALLOWED_HOSTS" in answer.json()["detail"]
        for host in self.OURS:
            assert (await client.post("/predict", json=kick, headers={"Host": host})).status_code == 200, host
        twice = [("Host", "localhost"), ("Host", "evil.example")]
        assert (await client.get("/model", headers=twice)).status_code == 403

    @pytest.mark.parametrize(
        "variables",
        [{"KICKSERVE_ALLOWED_HOSTS": "Kicks.example"}, {"KICKSERVE_ALLOWED_HOSTS": "*"}, {"API_KEY": "k"}],
    )
    async def test_a_setting_or_a_key_admits_other_names(self, start, settings, kick, variables):
        client = await start(configured(settings, **variables))
        headers = {"Host": "kicks.EXAMPLE:80", "X-API-Key": "k"}
        assert (await client.post("/predict", json=kick, headers=headers)).status_code == 200


class TestOrigins:
    @pytest.mark.parametrize(
        ("allowed", "cases"),
        [
            (
                "",
                [
                    ({}, True),
                    ({"origin": "http://here.org"}, True),
                    ({"origin": "https://here.org:8443", "host": "here.org:8443"}, True),
                    ({"origin": "https://Here.org:443"}, True),
                    ({"origin": "https://here.org", "host": "HERE.org:443"}, True),
                    ({"origin": "http://here.org", "host": "here.org:80"}, True),
                    ({"origin": "http://here.org", "host": "here.org:443"}, False),
                    ({"origin": "https://there.org"}, False),
                    ({"origin": "https://here.org.there.org"}, False),
                    ({"origin": "http://here.org:81"}, False),
                    ({"origin": "null"}, False),
                    ({"origin": ""}, False),
                    ({"origin": "file://"}, False),
                    ({"origin": "http://["}, False),
                ],
            ),
            (
                "https://There.org:443, http://localhost:*",
                [
                    ({"origin": "https://there.org"}, True),
                    ({"origin": "http://localhost:3000"}, True),
                    ({"origin": "http://there.org"}, False),
                    ({"origin": "https://localhost:3000"}, False),
                ],
            ),
            ("*", [({"origin": "https://there.org"}, True)]),
        ],
    )
    async def test_without_a_key_pages_of_the_host_and_of_allowed_origins_may_predict(
        self, start, settings, kick, allowed, cases
    ):
        variables = {"KICKSERVE_CORS_ORIGINS": allowed, "KICKSERVE_ALLOWED_HOSTS": "here.org"}
        client = await start(configured(settings, **variables))
        for headers, ours in cases:
            answer = await client.post("/predict", json=kick, headers={"host": "here.org", **headers})
            assert answer.status_code == (200 if ours else 403), headers

    @pytest.mark.parametrize(("trusted", "status"), [("127.0.0.1", 200), ("", 403)])
    async def test_the_name_of_the_service_in_front_counts_from_a_trusted_proxy_alone(
        self, start, settings, kick, trusted, status
    ):
        client = await start(configured(settings, KICKSERVE_TRUSTED_PROXIES=trusted))
        for names in ("here.org", "Here.org:443", "here.org, 10.0.0.1:7860"):
            headers = {"Origin": "https://here.org", "X-Forwarded-Host": names}
            assert (await client.post("/predict", json=kick, headers=headers)).status_code == status, names

    async def test_a_page_of_an_allowed_origin_may_send_any_header(self, start, settings):
        client = await start(configured(settings, KICKSERVE_CORS_ORIGINS="http://localhost:*"))
        wanted = "authorization, content-type, traceparent, tracestate, baggage, sentry-trace"
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
        answer = await client.options("/predict", headers={"Origin": "http://localhost:3000", **asked})
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
        assert set(wanted.split(", ")) <= set(allowed)
        answer = await client.options("/predict", headers={"Origin": "http://evil.example", **asked})
        assert "access-control-allow-origin" not in answer.headers

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
            rebound = handshake(
                url.port, "/ui/_nicegui_ws/socket.io/", f"http://evil.org:{url.port}", "evil.org"
            )
            assert rebound == 403
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

    async def test_nothing_but_reports_of_the_folder_is_served(self, rooms):
        report = "drift-20260101T000000000002Z.html"
        for name in [
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
            f"{report}%00.json",
            "%00",
            f"{report}%0a",
            "drift-20260101T000000000000Z.html",  # links that leave the folder
            "drift-20260101T000000000001Z.json",
            ".evaluate.log",
        ]:
            status, body = await raw(rooms.app, f"/api/v1/drift/reports/{name}")
            assert status == 404, name
            assert b"the secret" not in body
        assert await raw(rooms.app, f"/api/v1/drift/reports/{report}") == (200, b"a report")

    async def test_a_report_runs_in_a_sandbox(self, rooms):
        answer = await rooms.get("/drift/reports/drift-20260101T000000000002Z.html")
        assert answer.headers[POLICY].startswith("sandbox allow-scripts; default-src 'none'")

    @pytest.mark.parametrize("base", ["/docs-assets", "/ui/_nicegui/3.0.0/static", "/ui"])
    async def test_files_of_pages_stay_in_their_folder(self, client, base):
        for path in [
            *("../__init__.py", "%2e%2e/__init__.py", "..%2f__init__.py"),
            *("%2fetc%2fpasswd", "%00", "a" * 300),
        ]:
            status, body = await raw(client.app, f"{base}/{path}")
            assert status in {400, 404}, path
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
    """Ask for a path as it is, which clients would tidy up; return status and body."""
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
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("test", 80),
        "root_path": "",
    }
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:])


class TestSql:
    async def test_sql_in_a_request_is_text(self, client, kick):
        await client.post("/predict", json=kick)
        for text in ["' OR 1=1 --", "'; DROP TABLE predictions; --", '" OR ""="', "\\'", "%"]:
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
    def test_no_secret_is_logged_whatever_fails(self, tmp_path, kick, log):
        with site(500) as hook, away() as port:
            environment = {
                **SECRETS,
                "DATABASE_URL": f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/kicks",
                "KICKSERVE_DRIFT_WEBHOOK": f"http://127.0.0.1:{hook}/token-sesame-4716",
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
                until(lambda: any("the previous keys stay valid" in line for line in server.log))
                server.end()
            said = "".join(server.log)
        assert "POST /api/v1/predict" in said  # it did say something
        assert "api_key=(hidden)" in said
        assert "sesame" not in said
        assert "barley" not in said
        assert not any(key in said for key in KEYS.values())

    def test_no_secret_is_in_the_message_of_a_server_that_can_not_start(self, tmp_path, monkeypatch, capsys):
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, value)
        for name, value in [("KICKSERVE_PORT", "x"), ("KICKSERVE_DRIFT_WEBHOOK", "sesame-4718")]:
            with monkeypatch.context() as patch:
                patch.setenv(name, value)
                assert run(["serve"]) == 2
            said = capsys.readouterr().err
            assert name in said
            assert "sesame" not in said
        url = f"postgresql://me:{PASSWORD}@127.0.0.1:1/kicks?sslmode=nonsense"
        with pytest.raises(NotStarted, match="Error") as failure, serving(tmp_path, DATABASE_URL=url):
            pass
        assert "sesame" not in str(failure.value)


@contextmanager
def away():
    """A port where nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
