"""The page of kickers in a real browser and behind it: a file becomes a league table, and nothing else."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from pages import predictions, served
from playwright.sync_api import expect

from kickserve.features import NAMES
from kickserve_data.simulate import simulate

ROWS = ".league tbody tr"
PEOPLE = ("Léa Martin", "Théo O’Hara", "=Zoé")


@pytest.fixture(scope="module")
def season():
    """Kicks of three people, by the names that this project has for columns."""
    kicks = simulate(240, 7, kickers=3)
    people = [PEOPLE[at] for at in kicks.kicker.tolist()]
    rows = zip(kicks.matrix.tolist(), people, kicks.success.tolist(), strict=True)
    return [dict(zip(NAMES, row, strict=True)) | {"kicker": who, "made": made} for row, who, made in rows]


def coach(season):
    """Return the file of a coach: names and words of their own, dates, and two lines that are no kicks."""
    lines = ["Player;Match date;dist_m;kick angle;Side;Kick outcome?"]
    for at, kick in enumerate(season):
        side = "left" if kick["is_left_side"] else "right"
        numbers = f"{kick['distance']:.1f};{kick['angle']:.1f}".replace(".", ",")
        made = "made" if kick["made"] else "missed"
        lines.append(f"{kick['kicker']};{at % 28 + 1:02}/10/2025;{numbers};{side};{made}")
    lines[3] += ";a note"
    lines[6] = re.sub(r"2025;[\d,]+", "2025;far", lines[6])
    return "\n".join(lines)


def table(season):
    text = io.StringIO()
    writer = csv.DictWriter(text, [*NAMES, "kicker", "made"])
    writer.writeheader()
    writer.writerows(season)
    return text.getvalue()


def choose(page, text, name="season.csv"):
    page.locator("input[type=file]").set_input_files(
        {"name": name, "mimeType": "text/csv", "buffer": text.encode()}
    )


def drop(page, text, name="season.csv"):
    page.locator(".source").evaluate(
        """(source, [text, name]) => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([text], name));
        source.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        [text, name],
    )


def names(page):
    return page.locator(f"{ROWS} a").all_inner_texts()


def column(page, label):
    return page.locator(f"[data-column={label}] select")


def show(page, text="Show the table"):
    page.get_by_role("button", name=text).click()
    expect(page.locator(ROWS).first).to_be_visible()


def figures(answer):
    length = int.from_bytes(answer.content[:4], "little")
    return json.loads(answer.content[4 : 4 + length])


def test_a_file_with_columns_named_otherwise_is_matched_corrected_and_its_odd_lines_shown(visit, season):
    page = visit("/kickers")
    drop(page, coach(season))
    expect(page.locator("[data-column=distance] .guess")).to_contain_text("dist_m")
    expect(page.locator(ROWS)).to_have_count(0)
    column(page, "date").select_option("")
    column(page, "is_left_side").select_option("")
    show(page)
    assert sorted(names(page)) == sorted(PEOPLE)
    page.locator(".refused summary").click()
    refused = page.locator(".refused tbody tr")
    expect(refused).to_have_count(2)
    expect(refused.nth(0)).to_contain_text(re.compile("4.*has 7 cells where the header has 6", re.DOTALL))
    expect(refused.nth(1)).to_contain_text(
        re.compile("7.*distance 'far' must be a number from 2 to 100 m", re.DOTALL)
    )
    page.get_by_role("link", name="Léa Martin").click()
    expect(page.locator(".form text").last).to_have_text(
        re.compile(r"^kick \d+$")
    )  # there is no date any more
    page.locator("summary", has_text="Columns").click()
    column(page, "date").select_option("Match date")
    page.get_by_role("button", name="Show the table").click()
    expect(page.locator(".form text").last).to_have_text("28 Oct 2025")


def test_the_figures_are_those_of_the_command_line_and_the_csv_has_no_formula(
    visit,
    season,
    tmp_path,
    kickserve,
):
    (tmp_path / "season.csv").write_text(table(season), encoding="utf-8")
    code, listed, _ = kickserve("kickers", tmp_path / "season.csv", "--json")
    page = visit("/kickers")
    choose(page, table(season))
    expect(page.locator(ROWS)).to_have_count(3)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    rows = [*csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8")))]
    assert code == 0
    for row, known in zip(rows, json.loads(listed), strict=True):
        assert row.pop("kicker").removeprefix("'") == known.pop("kicker")
        assert {name: float(value) for name, value in row.items()} == pytest.approx(known, abs=2e-6)
    assert "'=Zoé" in download.value.path().read_text(encoding="utf-8")


def test_sort_filter_and_two_kickers_are_in_the_link_and_survive_a_reload(visit):
    page = visit("/kickers")
    page.get_by_role("button", name="Try the sample season").click()
    expect(page.locator(".source .badge")).to_contain_text("Simulated")
    page.locator(".league [data-sort=kicks]").click()
    page.locator("[data-field=least]").fill("60")
    kicks = page.locator(f"{ROWS} td:nth-child(2)")
    expect(page.locator("[aria-sort=descending]")).to_have_text(re.compile("Kicks"))
    shown, before = kicks.all_inner_texts(), names(page)
    assert [*map(int, shown)] == sorted(map(int, shown), reverse=True)
    assert min(map(int, shown)) >= 60
    page.reload()
    expect(page.locator(ROWS)).to_have_count(len(shown))
    assert names(page) == before
    page.get_by_role("link", name=before[0], exact=True).press("Enter")
    expect(page.locator(".kicker .name")).to_be_focused()
    page.locator("[data-field=with]").select_option(before[1])
    page.reload()
    expect(page.locator(".kicker .name")).to_have_text(before[:2])
    for at in (0, 1):
        expect(page.locator(".kicker").nth(at).locator(".kicks circle")).to_have_count(int(shown[at]))
    expect(page.locator(".against .verdict")).to_contain_text("Of 100 kicks of equal difficulty")
    page.go_back()
    expect(page.locator(".kicker")).to_have_count(1)


def test_nothing_is_recorded_before_save_and_each_kick_once_after(visit, season, tmp_path):
    with served(tmp_path) as server:
        page = visit("/kickers", server.root)
        expect(page.get_by_text("Drop a season’s file here")).to_be_visible()
        choose(page, table(season[:40]))
        expect(page.locator(ROWS)).to_have_count(len({each["kicker"] for each in season[:40]}))
        assert predictions(server) == []
        for text, saved, before in ((table(season[:40]), 40, 0), (table(season[:50]), 10, 40)):
            choose(page, text)
            expect(page.get_by_text(f"{len(text.splitlines()) - 1} kicks of")).to_be_visible()
            page.get_by_role("button", name="Save", exact=True).click()
            expect(page.get_by_text(f"Kicks recorded: {saved}.")).to_be_visible()
            expect(page.get_by_text(f"Recorded before, and left as they are: {before}.")).to_have_count(
                int(before > 0)
            )
            expect(page.get_by_role("button", name="Save", exact=True)).to_be_disabled()
        records = predictions(server, limit=200)
        assert len(records) == 50
        assert {each["source"] for each in records} == {"batch"}
        kept = sorted((each["kicker"], each["distance"], each["outcome"]) for each in records)
        assert kept == sorted((each["kicker"], each["distance"], each["made"]) for each in season[:50])
        page.get_by_role("button", name="Show the stored kickers").click()
        expect(page.locator(ROWS)).to_have_count(3)
        known = httpx.get(f"{server.url}/kickers").json()
        assert names(page) == [each["kicker"] for each in known]
        page.locator(f"{ROWS} a").first.click()
        expect(page.locator(".kicks circle")).to_have_count(known[0]["kicks"])
        # What was made up of a file's kicks keeps them out of drift and quality.
        httpx.post(f"{server.root}/ui/kickers/save", content=b"distance,angle,made\n30,20,1\n", timeout=60)
        assert predictions(server)[0]["source"] == "page"


def test_rows_are_pasted_from_a_spreadsheet(visit):
    page = visit("/kickers")
    page.get_by_role("button", name="Paste rows").click()
    page.get_by_label("Rows copied").fill(
        "kicker\tdistance\tangle\tmade\nAna\t30\t10\tyes\nBo\t41,5\t33\tno\n"
    )
    page.keyboard.press("Tab")
    expect(page.locator(ROWS)).to_have_count(2)


def test_the_surface_shows_little_where_few_kicks_lie(visit):
    page = visit("/kickers?from=sample")
    expect(page.locator(ROWS).first).to_be_visible()
    found = page.evaluate(
        """async () => {
        const names = performance.getEntriesByType("resource").map(({ name }) => name);
        const { surfaceOf } = await import(names.find((name) => name.endsWith("/figures.js")));
        const kick = { distance: 30, angle: 0, side: "left", chance: 0.7, made: false };
        const there = 60 * 141 + 70; // 30 m out, 35 m from the touch line
        return [0, 1, 20].map((count) => surfaceOf(Array(count).fill(kick)).difference[there]);
        }"""
    )
    assert found == pytest.approx([0, -0.7 / 21, -0.7 / 2])


@pytest.mark.parametrize("width", [360, 820, 1440])
def test_the_page_of_kickers_has_no_serious_barrier_and_fits_in_french(visit, season, width):
    scheme = "dark" if width == 820 else "light"
    size = {"width": width, "height": 900}
    page = visit("/kickers", locale="fr-FR", viewport=size, color_scheme=scheme)
    choose(page, coach(season), "saison.csv")
    expect(page.locator(".guess").first).to_be_visible()
    steps = [
        lambda: None,
        lambda: show(page, "Afficher le classement"),
        page.locator(f"{ROWS} a").first.click,
    ]
    for step in steps:
        step()
        page.locator("details").evaluate_all("all => all.forEach((each) => { each.open = true; })")
        expect(page.get_by_role("progressbar")).to_have_count(0)  # NiceGUI's own, while it connects
        for each in Axe().run(page).response["violations"]:
            assert each["impact"] not in {"serious", "critical"}, each
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.locator(".refused")).to_contain_text("distance 'far' : il faut un nombre de 2 à 100 m")
    expect(page.locator(".stats")).to_contain_text(re.compile(r"\d,\d"))


def test_a_file_that_is_none_or_too_large_is_refused_with_the_reason(server):
    def refusal(content, **query):
        answer = httpx.post(f"{server.root}/ui/kickers/read", content=content, params=query, timeout=60)
        return answer.status_code, answer.json()["detail"]

    head = b"distance,angle,made\n"
    assert refusal(b"") == (422, "is empty")
    assert refusal(b"\x89PNG\r\n\x1a\n\0\0") == (422, "is no table: send CSV, a spreadsheet, Parquet or JSON")
    assert refusal(head + b"30,20,1\n" * 100_001) == (422, "has more than 100,000 rows: send a part of it")
    assert refusal(b"a" * 10_000_001)[0] == 413
    for wide in (b"," * 1_000, b"a," * 1_000, b"a" * 1_000):
        assert refusal(wide)[1].startswith("is no table")
    assert refusal(head, columns="[]")[0] == 422
    swollen = gzip.compress(head + b"1" * 1_000_000_000, 1)
    assert refusal(swollen) == (
        422,
        "takes too much memory to read: send a part of it, or save it as CSV",
    )
    unknown = httpx.post(f"{server.root}/ui/kickers/read", content=b"who;what\nAna;1\n", timeout=60)
    assert figures(unknown)["missing"] == ["success", "distance", "angle"]


def test_without_the_key_a_file_is_read_but_neither_saved_nor_are_stored_kickers_shown(guarded):
    kicks = b"kicker,distance,angle,made\nAna,30,20,1\n"
    pages = f"{guarded.root}/ui/kickers"
    [row] = figures(httpx.post(f"{pages}/read", content=kicks, timeout=60))["kickers"]
    assert (row["kicker"], row["kicks"]) == ("Ana", 1)
    answers = [
        httpx.post(f"{pages}/save", content=kicks),
        httpx.get(f"{pages}/stored"),
        httpx.get(f"{pages}/kicks", params={"kicker": "Ana"}),
        httpx.post(f"{pages}/read", content=kicks, headers={"Origin": "https://elsewhere.example"}),
    ]
    assert [each.status_code for each in answers] == [401, 401, 401, 403]
