// The history page: stored kicks, with what came of them. The list holds still: new kicks are counted, and shown when
// the visitor wants them.

import { createApp } from "vue";
import { boot, placeOf, reasonOf, send, w } from "./service.js";

const LOOK = 3000; // milliseconds between looks for new kicks, and for marks that others made
const UNDO = 8000; // milliseconds in which a deletion can be undone: only then it is sent
const FIELDS = ["since", "until", "outcome", "source", "kicker", "order", "page"];
const REST = 300; // milliseconds after the last letter of a kicker's name

const History = {
  template: `
  <h1>{{ t("title_history") }}</h1>
  <section class="card">
    <form class="filters" @submit.prevent>
      <label class="number-field">{{ t("from") }}<input type="date" :value="filter.since" @change="set({ since: $event.target.value })"></label>
      <label class="number-field">{{ t("to") }}<input type="date" :value="filter.until" @change="set({ until: $event.target.value })"></label>
      <label v-for="(options, name) in choices" class="number-field">{{ t(name) }}
        <select :value="filter[name]" :data-field="name" @change="set({ [name]: $event.target.value })"><option v-for="each in options" :value="each">{{ t(name + "_" + (each || "any")) }}</option></select></label>
      <label class="number-field">{{ t("kicker_head") }}<input type="search" maxlength="64" :value="filter.kicker" @input="setKicker($event.target.value)"></label>
      <a class="button" :href="boot.root + '/history.csv?' + query">{{ t("csv") }}</a>
    </form>
    <p v-if="trouble" class="warning" role="alert">{{ trouble }}</p>
    <p v-if="rows && !rows.length" class="hint">{{ t(any ? "nothing" : "empty") }} <a v-if="!any" :href="boot.root">{{ t("first_kick") }}</a></p>
    <div v-if="rows?.length" class="scroll" tabindex="0"><table class="sheet records">
      <thead><tr><th v-for="each in heads" scope="col">{{ t(each) }}</th></tr></thead>
      <tbody><tr v-for="row in rows" :key="row.id" :data-id="row.id" :class="{ gone: row.gone }">
        <td class="chance"><template v-if="row.prediction !== null"><i class="swatch" :style="{ background: row.colour }"></i>{{ w.percent(row.prediction) }}</template><template v-else>-</template></td>
        <td class="spot">{{ placeOf(row) }}</td>
        <td class="when">{{ row.at }}</td>
        <td class="rest">{{ t("minute_value", { value: w.number(row.minute) }) }} · {{ t("wind_value", { value: w.number(row.wind) }) }}</td>
        <td class="who">{{ row.kicker ?? "" }}</td>
        <td class="rest">{{ t("source_" + row.source) }}</td>
        <td class="what"><div class="marks">
          <button v-for="(success, name) in { scored: true, missed: false }" class="button" :data-mark="name" :aria-pressed="row.outcome === success"
            :disabled="!boot.rights.record || row.gone" @click="mark(row, row.outcome === success ? null : success)">{{ t(name) }}</button>
        </div></td>
        <td class="do"><div class="marks">
          <a class="button" :href="boot.root + '/?' + row.link">{{ t("show") }}</a>
          <button v-if="boot.rights.delete" class="button" data-mark="delete" :disabled="row.gone" :aria-label="t('delete') + ': ' + placeOf(row)" @click="remove(row)">{{ t("delete") }}</button>
        </div></td>
      </tr></tbody>
    </table></div>
    <div class="pager">
      <button class="button" data-go="newest" :disabled="page === 0 && !fresh" :class="{ primary: fresh }" @click="refresh">{{ fresh ? t("new", { count: fresh > 99 ? "99+" : fresh }) : t("newest") }}</button>
      <button class="button" data-go="back" :disabled="page === 0" @click="set({ page: String(page - 1) }, newest)">{{ t("back_page") }}</button>
      <button class="button" data-go="older" :disabled="!more" @click="set({ page: String(page + 1) }, newest)">{{ t("next_page") }}</button>
      <p class="hint" role="status">{{ counted }}</p>
    </div>
  </section>
  <div v-if="said" class="toast"><p role="status">{{ said }}</p><button v-if="steps.length" class="button" :disabled="busy" @click="undo">{{ t("undo") }}</button></div>`,
  data() {
    const given = new URLSearchParams(location.search);
    return {
      boot, w,
      filter: Object.fromEntries(FIELDS.map((name) => [name, given.get(name) ?? ""])),
      rows: null, total: null, more: false, fresh: 0,
      newest: "", // the list holds the kicks up to this one
      trouble: "", said: "", busy: false,
      steps: [], // that Undo takes back, the last first
    };
  },
  computed: {
    choices: () => boot.filters,
    heads: () => ["chance", "spot", "when", "conditions", "kicker_head", "source", "outcome", "actions"],
    page() {
      return Number(this.filter.page) || 0;
    },
    query() {
      return new URLSearchParams(FIELDS.filter((name) => this.filter[name]).map((name) => [name, this.filter[name]])).toString();
    },
    any() {
      return ["since", "until", "outcome", "source", "kicker"].some((name) => this.filter[name]);
    },
    counted() {
      if (this.total === null || !this.rows?.length) return "";
      const first = this.page * boot.rows + 1;
      const total = w.number(this.total);
      return w.t(this.total >= boot.most ? "shown_of_more" : "shown_of", { first: w.number(first), last: w.number(first + this.rows.length - 1), total });
    },
  },
  mounted() {
    this.load();
    setInterval(() => document.hidden || this.look(), LOOK);
    window.addEventListener("pagehide", () => this.steps.filter((each) => each.timer).forEach((each) => this.send(each)));
    window.addEventListener("popstate", () => {
      const given = new URLSearchParams(location.search);
      this.filter = Object.fromEntries(FIELDS.map((name) => [name, given.get(name) ?? ""]));
      this.load();
    });
  },
  methods: {
    t: w.t,
    placeOf,
    set(values, newest = "") {
      this.filter = { ...this.filter, page: "", ...values };
      history.pushState(null, "", `?${this.query}`);
      this.newest = newest;
      this.load();
    },
    setKicker(name) {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.set({ kicker: name.trim() }), REST);
    },
    refresh() {
      this.set({ page: "" });
    },
    async load() {
      const wanted = this.query;
      const found = await this.ask(`${wanted}&newest=${this.newest}`);
      if (!found || wanted !== this.query) return;
      const pending = new Set(this.steps.filter((each) => each.timer).map((each) => each.row.id));
      this.rows = found.records.map((each) => ({ ...each, gone: pending.has(each.id) }));
      [this.total, this.more, this.newest, this.fresh] = [found.total, found.more, found.newest, 0];
    },
    /** Look for new kicks, which are only counted, and for what others did to those that are shown. */
    async look() {
      const wanted = this.query;
      const found = await this.ask(`${wanted}&newest=${this.newest}`);
      if (!found || wanted !== this.query || !this.rows) return;
      if (!this.rows.length && !this.page && (found.records.length || found.fresh)) return this.refresh();
      const records = new Map(found.records.map((each) => [each.id, each]));
      for (const row of this.rows) {
        if (records.has(row.id)) row.outcome = records.get(row.id).outcome;
        else if (!this.any && !this.page) row.gone = true; // others have deleted it
      }
      this.fresh = found.fresh;
    },
    async ask(query) {
      try {
        const found = await (await send(`/records?${query}`)).json();
        this.trouble = "";
        return found;
      } catch (error) {
        if (error.status === 401 || error.status === 403) location.reload(); // the page asks for a key
        this.trouble = error.answered ? error.message : w.t("service_away");
      }
    },
    async mark(row, success) {
      const before = row.outcome;
      await this.act(async () => {
        await send(`/record/${row.id}`, { method: "PUT", body: { success } });
        row.outcome = success;
        this.steps.push({ row, before });
        const what = success === null ? w.t("outcome_open") : w.t(success ? "scored" : "missed");
        this.said = `${placeOf(row)}: ${what}`;
      });
    },
    remove(row) {
      const step = { row };
      row.gone = true;
      step.timer = setTimeout(() => this.send(step), UNDO);
      this.steps.push(step);
      this.said = w.t("deleted", { what: `${w.percent(row.prediction ?? 0)}, ${placeOf(row)}, ${row.at}` });
    },
    async send(step) {
      clearTimeout(step.timer);
      step.timer = null;
      this.steps = this.steps.filter((each) => each.row !== step.row);
      if (!this.steps.length) this.said = "";
      try {
        await send(`/record/${step.row.id}`, { method: "DELETE", keepalive: true });
      } catch (error) {
        if (error.status === 404) return; // others were quicker
        step.row.gone = false;
        this.said = reasonOf(error);
      }
    },
    async undo() {
      await this.act(async () => {
        const step = this.steps.at(-1);
        if (step.timer) {
          clearTimeout(step.timer);
          step.row.gone = false;
        } else {
          await send(`/record/${step.row.id}`, { method: "PUT", body: { success: step.before } });
          step.row.outcome = step.before;
        }
        this.steps.pop();
        this.said = w.t("undone", { what: placeOf(step.row) });
      });
    },
    async act(action) {
      if (this.busy) return;
      this.busy = true;
      try {
        await action();
      } catch (error) {
        this.said = error.status === 404 ? w.t("gone") : reasonOf(error);
      }
      this.busy = false;
    },
  },
};

createApp(History).mount("#board");
