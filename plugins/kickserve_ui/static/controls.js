// Inputs (Vue components): a number, a slider, a choice. Each shows a value, and says what the visitor makes of it.

export const NumberField = {
  template: `
  <label class="number-field">{{ label }}
    <input type="text" inputmode="decimal" autocomplete="off" :data-field="name" :value="draft ?? text" :aria-invalid="faulty"
           :aria-describedby="faulty ? name + '-fault' : null" @input="enter" @blur="draft = null">
    <span v-if="faulty" :id="name + '-fault'" class="fault">{{ w.t("bad_value", { name: label, low: range[0], high: range[1] }) }}</span>
  </label>`,
  props: { name: String, label: String, value: Number, range: Array, w: Object },
  emits: ["change"],
  data: () => ({ draft: null }),
  computed: {
    text() {
      const shown = String(Number(this.value.toFixed(2)));
      return this.w.number(0.5, 1).includes(",") ? shown.replace(".", ",") : shown;
    },
    typed() {
      return this.draft?.trim() ? Number(this.draft.replace(",", ".")) : NaN;
    },
    faulty() {
      return this.draft !== null && !(this.typed >= this.range[0] && this.typed <= this.range[1]);
    },
  },
  methods: {
    enter(event) {
      this.draft = event.target.value;
      if (!this.faulty) this.$emit("change", this.typed);
    },
  },
};

export const SliderField = {
  template: `
  <label class="slider"><span class="slider-head"><span>{{ label }}</span><span class="reading">{{ reading }}</span></span>
    <input type="range" :data-field="name" :min="range[0]" :max="range[1]" step="1" :value="value" :aria-valuetext="reading"
           @input="$emit('change', Number($event.target.value))">
  </label>`,
  props: { name: String, label: String, reading: String, value: Number, range: Array },
  emits: ["change"],
};

export const ChoiceField = {
  template: `
  <fieldset class="choice" :data-field="name"><legend>{{ label }}</legend>
    <div class="options"><button v-for="(text, each) in options" :key="each" type="button" :aria-pressed="each === value"
      @click="$emit('change', each)">{{ text }}</button></div>
  </fieldset>`,
  props: { name: String, label: String, options: Object, value: String },
  emits: ["change"],
};
