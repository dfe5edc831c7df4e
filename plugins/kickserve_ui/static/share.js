// What takes a kick elsewhere (Vue components): a link with its card, a frame for another page, a call of the API.

import { boot } from "./service.js";

const PAGES = location.origin + boot.root;
const API = PAGES.replace(/\/ui$/, "");

/** Copy what a field holds; false where the browser lets no page copy. Without https there is no `clipboard`. */
async function copy(field) {
  try {
    await navigator.clipboard.writeText(field.value);
    return true;
  } catch {
    field.focus();
    field.select();
    return document.execCommand("copy");
  }
}

// A button, and the dialog that it opens.
const Dialog = {
  template: `
  <button class="button" @click="open"><slot name="button"/></button>
  <dialog ref="dialog" class="card" :aria-label="title" @click.self="close">
    <div class="dialog-head"><h2>{{ title }}</h2><button class="button quiet" :aria-label="w.t('close')" @click="close">✕</button></div>
    <slot v-if="opened"/>
  </dialog>`,
  props: { title: String, w: Object },
  emits: ["open"],
  data: () => ({ opened: false }),
  methods: {
    open() {
      this.opened = true;
      this.$emit("open");
      this.$refs.dialog.showModal();
    },
    close() {
      this.$refs.dialog.close();
    },
  },
};

// A text to be copied, and what came of it.
const Copyable = {
  template: `
  <div class="copyable">
    <label>{{ label }}<textarea ref="field" readonly spellcheck="false" :rows="rows" :value="text" @focus="$event.target.select()"></textarea></label>
    <button class="button" @click="take">{{ action }}</button>
    <p class="note" role="status">{{ note }}</p>
  </div>`,
  props: { label: String, text: String, action: String, rows: Number, w: Object },
  data: () => ({ note: "" }),
  watch: {
    text() {
      this.note = "";
    },
  },
  methods: {
    async take() {
      this.note = this.w.t((await copy(this.$refs.field)) ? "copied" : "copy_by_hand");
    },
  },
};

export const ShareKick = {
  components: { Dialog, Copyable },
  template: `
  <Dialog :title="w.t('share_title')" :w="w"><template #button>{{ w.t("share") }}</template>
    <img class="card-picture" :src="card" :alt="spoken" width="1200" height="630">
    <Copyable :label="w.t('share_link')" :text="link" :action="w.t('copy')" :rows="2" :w="w"/>
    <p class="hint">{{ w.t("share_text") }}</p>
    <div class="presets">
      <button v-if="canShare" class="button primary" @click="send">{{ w.t("share_with") }}</button>
      <a class="button" :href="card" download="kick.png">{{ w.t("share_picture") }}</a>
    </div>
    <details><summary>{{ w.t("embed") }}</summary>
      <Copyable :label="w.t('embed_text')" :text="frame" :action="w.t('copy_embed')" :rows="4" :w="w"/>
    </details>
  </Dialog>`,
  // query: of the kick's link; spoken: the kick and its number in words.
  props: { query: String, spoken: String, w: Object },
  computed: {
    canShare: () => Boolean(navigator.share),
    told() {
      return boot.language === "en" ? this.query : `${this.query}&language=${boot.language}`;
    },
    link() {
      return `${PAGES}/?${this.told}`;
    },
    card() {
      return `${PAGES}/card.png?${this.query}&language=${boot.language}`;
    },
    frame() {
      const title = this.spoken.replaceAll("&", "&amp;").replaceAll('"', "&quot;");
      const source = `${PAGES}/embed?${this.told}`.replaceAll("&", "&amp;");
      return `<iframe src="${source}" title="${title}" width="480" height="560" style="border: 0" loading="lazy"></iframe>`;
    },
  },
  methods: {
    async send() {
      await navigator.share({ title: this.spoken, url: this.link }).catch(() => {}); // the visitor thought better of it
    },
  },
};

const WAYS = ["curl", "Python", "kickserve"];

export const UseByApi = {
  components: { Dialog, Copyable },
  template: `
  <Dialog :title="w.t('use_by_api')" :w="w"><template #button>{{ w.t("use_by_api") }}</template>
    <div class="options" role="group" :aria-label="w.t('use_by_api')">
      <button v-for="each in ways" :key="each" type="button" :aria-pressed="each === way" @click="way = each">{{ each === "kickserve" ? w.t("api_client") : each }}</button>
    </div>
    <Copyable v-if="kick" :label="w.t('api_' + way.toLowerCase())" :text="text" :action="w.t('copy_code')" :rows="12" :w="w"/>
    <p v-else class="hint">{{ w.t("api_wait") }}</p>
    <p class="hint">{{ w.t("api_text") }} <template v-if="guarded">{{ w.t("api_key") }}</template></p>
  </Dialog>`,
  // kick: its features, as the API takes them; null while the service has not answered.
  props: { kick: Object, w: Object },
  data: () => ({ way: WAYS[0], ways: WAYS, guarded: boot.guarded }),
  computed: {
    text() {
      return { curl: this.curl, Python: this.python, kickserve: this.client }[this.way];
    },
    /** The fields as Python writes them: texts and numbers are the same in JSON. */
    fields() {
      const python = (value) => (value === true ? "True" : value === false ? "False" : JSON.stringify(value));
      return Object.entries(this.kick).map(([name, value]) => [name, python(value)]);
    },
    curl() {
      const body = JSON.stringify(this.kick).replaceAll("'", "\\u0027"); // nothing ends the quotes around it
      const key = this.guarded ? ' \\\n  -H "X-API-Key: $API_KEY"' : "";
      return `curl -s ${API}/api/v1/predict \\\n  -H "Content-Type: application/json"${key} \\\n  -d '${body}'`;
    },
    python() {
      const kick = this.fields.map(([name, value]) => `    "${name}": ${value},`).join("\n");
      const [os, key] = this.guarded ? ["import os\n\n", ', headers={"X-API-Key": os.environ["API_KEY"]}'] : ["", ""];
      return `${os}import httpx\n\nkick = {\n${kick}\n}\nanswer = httpx.post("${API}/api/v1/predict", json=kick${key})\nprint(answer.raise_for_status().json()["prediction"])`;
    },
    client() {
      const kick = this.fields.map(([name, value]) => `        ${name}=${value},`).join("\n");
      return `from kickserve_client import Client\n\nwith Client("${API}") as client:\n    answer = client.predict(\n${kick}\n    )\nprint(answer.prediction)`;
    },
  },
};
