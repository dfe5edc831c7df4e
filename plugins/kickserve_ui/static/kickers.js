// The page of kickers: the table of a visitor's file, of a simulated season or of the store, and a kicker or two.
//
// The file stays in this tab: each question brings it along. What is shown of it is in the link: sort, filter, page.

import { createApp } from "vue";
import { Columns } from "./columns.js";
import { compare, extremes, unpack } from "./figures.js";
import { Kicker } from "./kicker.js";
import { boot, placeOf, send, w } from "./service.js";

const FIELDS = ["from", "sort", "order", "find", "least", "points", "page", "kicker", "with"];
const SORTS = ["kicker", "kicks", "made", "expected", "points", "hardest", "easiest"];
const RISING = ["kicker", "hardest"]; // what is of interest first: of the others the most
const POINTS = ["3", "2"];
const ROWS = 50;
const ACCEPTED = ".csv,.tsv,.txt,.xlsx,.xls,.ods,.parquet,.ndjson,.jsonl,.json,.gz";

const read = () => {
  const given = new URLSearchParams(location.search);
  return Object.fromEntries(FIELDS.map((name) => [name, given.get(name) ?? ""]));
};

const Kickers = {
  components: { Columns, Kicker },
  template: `
  <h1>{{ t("title_kickers") }}</h1>
  <section class="card source" :class="{ over }" :aria-label="t('source_of_kicks')">
    <p v-if="state.from === 'sample'" class="badge bad">{{ t("sample_badge") }}</p>
    <p class="lead">{{ t(source) }} <template v-if="summary">{{ summary }}</template></p>
    <div class="pager">
      <button class="button" :class="{ primary: source === 'from_none' }" @click="$refs.file.click()">{{ t("choose_file") }}</button>
      <input ref="file" type="file" hidden accept="${ACCEPTED}" @change="take($event.target.files[0])">
      <button class="button" :aria-expanded="pasting" @click="pasting = !pasting">{{ t("paste") }}</button>
      <button class="button" :aria-pressed="state.from === 'sample'" @click="go({ from: 'sample' })">{{ t("try_sample") }}</button>
      <button v-if="boot.rights.read" class="button" :aria-pressed="!state.from" @click="go({ from: '' })">{{ t("show_stored") }}</button>
    </div>
    <label v-if="pasting" class="number-field">{{ t("paste_text") }}<textarea ref="pasted" rows="5" spellcheck="false" @paste.stop="paste" @change="takeText($event.target.value)"></textarea></label>
    <p class="hint">{{ t("files_taken", { size: w.number(boot.most.bytes / 1e6), kicks: w.number(boot.most.kicks) }) }} {{ t("file_privacy") }}</p>
    <p v-if="busy" class="hint" role="status">{{ busy }}</p>
    <p v-if="trouble" class="warning" role="alert">{{ trouble }}</p>
  </section>

  <section v-if="file && found?.header" class="card">
    <details :open="!found.count"><summary><h2>{{ t(found.count ? "columns_of" : "columns_which") }}</h2></summary>
      <Columns :key="reads" :found="found" :boot="boot" :busy="!!busy" :t="t" :w="w" @use="readFile"/>
    </details>
    <details v-if="found.refused" class="refused" :open="!found.count"><summary>{{ t("refused", { count: w.number(found.refused) }) }}</summary>
      <div class="scroll" tabindex="0"><table class="sheet">
        <thead><tr><th scope="col" class="end">{{ t("line") }}</th><th scope="col">{{ t("reason") }}</th></tr></thead>
        <tbody><tr v-for="[line, reason] in found.refusals"><td class="end">{{ line }}</td><td class="wrap">{{ reason }}</td></tr></tbody>
      </table></div>
      <p v-if="found.refused > found.refusals.length" class="hint">{{ t("refused_first", { count: w.number(found.refusals.length) }) }}</p>
    </details>
    <p v-if="!found.count && !found.missing.length && !found.guessed.length" class="warning" role="alert">{{ t("no_kicks") }}</p>
    <p v-if="found.unnamed" class="hint">{{ t("unnamed_kicks", { count: w.number(found.unnamed) }) }}</p>
    <div v-if="found.count" class="pager">
      <button class="button" :class="{ primary: !saved }" :disabled="!!busy || !!saved || !boot.rights.record" @click="save">{{ t("save") }}</button>
      <p class="hint" role="status">{{ saved || t(boot.rights.record ? "save_text" : "save_key") }}</p>
    </div>
  </section>

  <section v-if="rows?.length && !shown.length" ref="table" class="card" tabindex="-1" :aria-label="t('kickers_table')">
    <form class="filters league-filters" @submit.prevent>
      <label class="number-field">{{ t("kicker_head") }}<input type="search" maxlength="64" data-field="find" :value="state.find" @input="type({ find: $event.target.value })"></label>
      <label class="number-field">{{ t("least") }}<input type="text" inputmode="numeric" maxlength="5" data-field="least" :value="state.least" @input="type({ least: $event.target.value.replace(/\\D/g, '') })"></label>
      <label class="number-field">{{ t("points_each") }}
        <select data-field="points" :value="state.points === '2' ? '2' : '3'" @change="set({ points: $event.target.value })"><option v-for="each in pointsOf" :value="each">{{ t("points_" + each) }}</option></select></label>
      <label class="number-field narrow">{{ t("sort_by") }}
        <select data-field="sort" :value="sort" @change="set({ sort: $event.target.value, order: '' })"><option v-for="each in sorts" :value="each">{{ t("head_" + each) }}</option></select></label>
      <button class="button" :disabled="!sorted.length" @click="download">{{ t("csv") }}</button>
    </form>
    <p v-if="!sorted.length" class="hint">{{ t("no_kicker") }}</p>
    <div v-else class="scroll" tabindex="0"><table class="sheet league">
      <caption class="unseen">{{ t("kickers_table") }}</caption>
      <thead><tr><th v-for="each in sorts" scope="col" :class="{ end: each !== 'kicker' }" :aria-sort="each !== sort ? null : rising ? 'ascending' : 'descending'">
        <button class="sort" :data-sort="each" @click="sortBy(each)">{{ t("head_" + each) }}<i aria-hidden="true">{{ each !== sort ? "" : rising ? "▲" : "▼" }}</i></button></th></tr></thead>
      <tbody><tr v-for="row in page.rows" :key="row.kicker">
        <th scope="row" class="who"><a :href="'?' + queryWith({ kicker: row.kicker })" @click.exact.prevent="open(row.kicker)">{{ row.kicker }}</a></th>
        <td class="end" :data-label="t('head_kicks')">{{ w.number(row.kicks) }}</td>
        <td class="end" :data-label="t('head_made')">{{ w.number(row.made) }} <small>{{ w.percent(row.made / row.kicks) }}</small></td>
        <td class="end" :data-label="t('head_expected')">{{ w.number(row.expected, 1) }}</td>
        <td class="end points"><b :class="{ good: row.points_from > 0, bad: row.points_to < 0 }">{{ signed(row.points) }}</b> <small>{{ t("from_to", { from: signed(row.points_from), to: signed(row.points_to) }) }}</small></td>
        <td class="end" :data-label="t('head_hardest')">{{ kick(row.hardest_made, row.hardest) }}</td>
        <td class="end" :data-label="t('head_easiest')">{{ kick(row.easiest_missed, row.easiest) }}</td>
      </tr></tbody>
    </table></div>
    <p class="hint">{{ t("table_text") }}</p>
    <div v-if="sorted.length > ${ROWS}" class="pager">
      <button class="button" :disabled="!page.number" @click="set({ page: String(page.number - 1) })">{{ t("back_page") }}</button>
      <button class="button" :disabled="page.last === sorted.length" @click="set({ page: String(page.number + 1) })">{{ t("next_page") }}</button>
      <p class="hint" role="status">{{ t("shown_of", { first: w.number(page.first), last: w.number(page.last), total: w.number(sorted.length) }) }}</p>
    </div>
  </section>

  <template v-if="shown.length">
    <section class="card against" :aria-label="t('beside')">
      <div class="filters">
        <a class="button" :href="'?' + queryWith({ kicker: '', with: '' })" @click.exact.prevent="set({ kicker: '', with: '' })">{{ t("all_kickers") }}</a>
        <label class="number-field">{{ t("beside") }}
          <select data-field="with" :value="state.with" @change="set({ with: $event.target.value })"><option value="">{{ t("beside_none") }}</option><option v-for="each in others" :value="each">{{ each }}</option></select></label>
      </div>
      <p v-if="difference" class="verdict">{{ difference }}</p>
    </section>
    <div class="duo"><Kicker v-for="row in shown" :key="source + row.kicker" :row="row" :columns="row.columns" :label="row.label" :t="t" :w="w"/></div>
  </template>`,
  data() {
    return {
      boot, w,
      sorts: SORTS, pointsOf: POINTS,
      state: read(),
      found: null, // of the service
      reads: 0, // answers to the file so far
      file: null, // of the visitor
      columns: null, // that the visitor has chosen
      stored: {}, // kicks of the store by kicker
      busy: "", trouble: "", saved: "",
      pasting: false, over: false,
    };
  },
  computed: {
    source() {
      if (this.state.from === "sample") return "from_sample";
      if (this.state.from === "file") return this.file ? "from_file" : "from_lost";
      return this.rows?.length ? "from_store" : "from_none";
    },
    summary() {
      if (!this.rows?.length) return "";
      const kicks = this.rows.reduce((sum, row) => sum + row.kicks, 0);
      const what = w.t("kicks_of", { kicks: w.number(kicks), kickers: w.number(this.rows.length) });
      return this.state.from === "file" ? w.t("file_holds", { file: this.file.name, what }) : what;
    },
    /** The rows of the table, with their points and their extremes. */
    rows() {
      if (!this.found?.kickers) return null;
      const { kicks, kickers, labels } = this.found;
      const ends = kicks && extremes(kicks, labels.length);
      const label = new Map(labels?.map((each, at) => [each, at]));
      const times = this.state.points === "2" ? 2 : 3;
      return kickers.map((row) => {
        const at = label.get(row.kicker);
        const points = { points: times * row.above, points_from: times * row.above_from, points_to: times * row.above_to };
        return { ...row, ...points, label: at ?? 0, hardest: ends?.hardest[at] ?? null, easiest: ends?.easiest[at] ?? null };
      });
    },
    sort() {
      return SORTS.includes(this.state.sort) ? this.state.sort : "points";
    },
    rising() {
      return this.state.order ? this.state.order === "rising" : RISING.includes(this.sort);
    },
    sorted() {
      const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
      const [wanted, least] = [plain(this.state.find), Number(this.state.least) || 0];
      const rows = this.rows.filter(({ kicker, kicks }) => kicks >= least && plain(kicker).includes(wanted));
      const value = (row) => row[{ hardest: "hardest_made", easiest: "easiest_missed" }[this.sort] ?? this.sort] ?? null;
      const names = new Intl.Collator(boot.language, { numeric: true });
      return rows.sort((one, other) => {
        const [first, second] = [value(one), value(other)];
        if (first === null || second === null) return (first === null) - (second === null); // last
        const order = this.sort === "kicker" ? names.compare(first, second) : first - second;
        return (this.rising ? order : -order) || names.compare(one.kicker, other.kicker);
      });
    },
    page() {
      const last = Math.floor(Math.max(this.sorted.length - 1, 0) / ROWS);
      const number = Math.max(0, Math.min(Math.trunc(this.state.page) || 0, last));
      const rows = this.sorted.slice(number * ROWS, (number + 1) * ROWS);
      return { number, rows, first: number * ROWS + 1, last: number * ROWS + rows.length };
    },
    /** The kickers that are shown one by one. */
    shown() {
      const names = [this.state.kicker, this.state.with].filter(Boolean);
      const rows = names.map((name) => this.rows?.find(({ kicker }) => kicker === name)).filter(Boolean);
      return rows.map((row) => ({ ...row, columns: this.found.kicks ?? this.stored[row.kicker] }));
    },
    others() {
      const names = new Intl.Collator(boot.language, { numeric: true });
      return this.rows.map(({ kicker }) => kicker).filter((each) => each !== this.state.kicker).sort(names.compare);
    },
    difference() {
      if (this.shown.length < 2) return "";
      const [one, other] = this.shown;
      const { value, low, high } = compare(one, other);
      const values = { one: value < 0 ? other.kicker : one.kicker, other: value < 0 ? one.kicker : other.kicker, value: w.number(Math.abs(value), 1) };
      const ends = value < 0 ? [-high, -low] : [low, high];
      return `${w.t("beside_text", { ...values, from: this.signed(ends[0]), to: this.signed(ends[1]) })} ${low < 0 && high > 0 ? `${w.t("advice_close")}.` : ""}`;
    },
  },
  watch: {
    shown: {
      immediate: true,
      handler(shown) {
        for (const { kicker, columns } of shown) if (!columns && !(kicker in this.stored)) this.loadKicks(kicker);
      },
    },
  },
  mounted() {
    this.load();
    window.addEventListener("popstate", () => {
      const before = this.state.from;
      this.state = read();
      if (before !== this.state.from) this.load();
    });
    const files = (event) => [...(event.dataTransfer?.items ?? [])].some(({ kind }) => kind === "file");
    document.addEventListener("dragover", (event) => files(event) && (event.preventDefault(), (this.over = true)));
    document.addEventListener("dragleave", (event) => event.relatedTarget || (this.over = false));
    document.addEventListener("drop", (event) => {
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      this.over = false;
      this.take(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", (event) => event.target.closest("input") || this.paste(event));
  },
  methods: {
    t: w.t,
    placeOf,
    signed: (value) => w.signed(value, 1),
    kick: (chance, kick) => (chance === null ? "–" : `${kick ? `${placeOf(kick)} · ` : ""}${w.percent(chance)}`),

    // What is shown, by the link.
    queryWith(values) {
      const state = { ...this.state, ...values };
      return new URLSearchParams(FIELDS.filter((name) => state[name]).map((name) => [name, state[name]])).toString();
    },
    set(values, replace = false) {
      const page = "kicker" in values || "with" in values ? this.state.page : ""; // who opens a kicker comes back to the page
      this.state = { ...this.state, page, ...values };
      history[replace ? "replaceState" : "pushState"](null, "", `?${this.queryWith({})}`);
    },
    type(values) {
      this.set(values, true);
    },
    sortBy(name) {
      const rising = name === this.sort ? !this.rising : RISING.includes(name);
      this.set({ sort: name, order: rising === RISING.includes(name) ? "" : rising ? "rising" : "falling" });
    },
    async open(kicker) {
      this.set({ kicker, with: "" });
      await this.$nextTick();
      document.querySelector(".kicker .name")?.focus();
    },
    go(values) {
      this.set({ kicker: "", with: "", page: "", ...values });
      this.load();
    },

    // What the service is asked.
    async load() {
      this.asked = null;
      [this.found, this.trouble, this.saved, this.stored] = [null, "", "", {}];
      if (this.state.from === "sample") await this.ask(w.t("loading"), "/kickers/sample");
      else if (this.state.from === "file") this.file && (await this.readFile(this.columns));
      else if (boot.rights.read) await this.ask(w.t("loading"), "/kickers/stored");
    },
    paste(event) {
      const [file] = event.clipboardData?.files ?? [];
      const text = event.clipboardData?.getData("text/plain") ?? "";
      if (!text.trim().includes("\n")) return file && this.take(file); // spreadsheets bring a picture beside the text
      event.preventDefault();
      this.takeText(text);
    },
    takeText(text) {
      if (text.trim()) this.take(new File([text], w.t("pasted")));
    },
    take(file) {
      if (!file) return;
      this.$refs.file.value = ""; // so that the same file can be chosen again
      [this.file, this.columns, this.pasting] = [file, null, false];
      this.set({ from: "file", kicker: "", with: "", page: "" });
      this.load();
    },
    async readFile(columns) {
      [this.columns, this.saved] = [columns && { ...columns }, ""];
      if (this.file.size > boot.most.bytes) return (this.trouble = w.t("file_too_large", { most: w.number(boot.most.bytes / 1e6) }));
      await this.ask(w.t("reading", { file: this.file.name }), `/kickers/read?${this.chosen()}`, { method: "POST", body: this.file });
      this.reads += 1;
      await this.$nextTick();
      this.$refs.table?.focus();
    },
    async save() {
      await this.act(w.t("saving"), async () => {
        const answer = await send(`/kickers/save?${this.chosen()}`, { method: "POST", body: this.file });
        const { saved, before } = await answer.json();
        this.saved = `${w.t("saved", { count: w.number(saved) })} ${before ? w.t("saved_before", { count: w.number(before) }) : ""}`;
      });
    },
    async loadKicks(kicker) {
      this.stored[kicker] = null;
      await this.act("", async () => {
        const answer = await send(`/kickers/kicks?${new URLSearchParams({ kicker })}`);
        this.stored[kicker] = Object.freeze(unpack(await answer.arrayBuffer()).kicks);
      });
    },
    chosen() {
      return this.columns ? new URLSearchParams({ columns: JSON.stringify(this.columns) }) : "";
    },
    async ask(doing, path, options) {
      const wanted = (this.asked = Symbol(path)); // only the newest answer counts
      await this.act(doing, async () => {
        const found = unpack(await (await send(path, options)).arrayBuffer());
        if (wanted === this.asked) this.found = Object.freeze(found);
      });
    },
    async act(doing, action) {
      [this.busy, this.trouble] = [doing, ""];
      try {
        await action();
      } catch (error) {
        const why = error.message === "413" ? w.t("file_stopped") : error.message; // of a proxy, which gives no reason
        this.trouble = error.answered ? why : w.t(this.file ? "file_away" : "kickers_away");
      }
      this.busy = "";
    },
    download() {
      const number = (value) => (value === null ? "" : Number(value.toFixed(6)));
      const lines = this.sorted.map((row) => [row.cell, ...boot.figures.slice(1).map((name) => number(row[name]))]);
      const text = [boot.figures, ...lines].map((cells) => `${cells.join(",")}\n`).join("");
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "kickserve-kickers.csv" });
      link.click();
      URL.revokeObjectURL(link.href);
    },
  },
};

createApp(Kickers).mount("#board");
