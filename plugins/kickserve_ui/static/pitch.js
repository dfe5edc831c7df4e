// The pitch (a Vue component): the heat map on a canvas, and above it, to scale in metres, lines, contours and ball.
//
// It only draws, and says where the visitor puts the ball ("place", then "drop" at the end of a drag) or the try of a
// conversion ("try"): its owner decides what comes of that.

import { draw } from "./heat.js";
import { clamp, DEPTH, POSTS, WIDTH } from "./rugby.js";
import { boot } from "./service.js";

const [LEFT, TOP, ACROSS, DOWN] = [-2, -10.5, 74, 73.5]; // the part that is shown, in metres
const TAP = 10; // pixels: a finger that moves further scrolls the page

const percent = (part, whole) => `${(100 * part) / whole}%`;

export const Pitch = {
  template: `
  <div class="pitch" :class="{dragging, stale, still: !ball}">
    <canvas ref="canvas" :style="canvasStyle" aria-hidden="true"></canvas>
    <slot :place="canvasStyle"/>
    <svg ref="svg" :viewBox="viewBox" role="group" :aria-label="label ?? t('pitch')" @pointerdown="press"
         @pointermove="drag" @pointerup="release" @pointercancel="cancel">
      <defs><clipPath id="grass"><rect x="0" y="0" width="70" height="62"/></clipPath></defs>
      <g class="contours" clip-path="url(#grass)">
        <path v-for="each in lines" :key="each.name" :d="each.path" :class="each.name"/>
      </g>
      <g v-html="boot.pitch"></g>
      <g class="names" aria-hidden="true">
        <text x="69.2" y="21.3">22</text><text x="69.2" y="39.3">10</text>
        <text x="69.2" y="49.3">{{ t("halfway") }}</text>
      </g>
      <slot name="marks"></slot>
      <g class="labels" aria-hidden="true">
        <template v-for="each in lines" :key="each.name">
          <text v-if="each.label" :x="each.label[0]" :y="each.label[1]" dy="0.6">{{ each.text }}</text>
        </template>
      </g>
      <path v-if="ball" class="opening" :d="opening"/>
      <g v-if="tee" class="tee">
        <path :d="'M' + tee.line + ' 0V62'"/>
        <rect class="zone" :x="tee.line - 1.3" :y="tee.from" width="2.6" :height="tee.to - tee.from" rx="1.3"/>
        <g ref="try" class="try" :transform="'translate(' + tee.line + ' -2.2)'" tabindex="0" role="slider"
           aria-valuemin="0" aria-valuemax="70" :aria-valuenow="tee.line" :aria-valuetext="tee.text"
           :aria-label="t('try_mark')" @keydown="nudgeTry">
          <circle class="reach" r="3.4"/><path class="flag" d="M0 2.2V-1.6L2.6 -0.6L0 0.4"/>
        </g>
      </g>
      <g v-if="ball" ref="ball" class="ball" :transform="'translate(' + shown.x + ' ' + shown.out + ')'" tabindex="0"
         role="slider" aria-valuemin="0" aria-valuemax="100" :aria-valuenow="distance"
         :aria-valuetext="spoken" :aria-label="t('ball')" aria-orientation="vertical" @keydown="nudge">
        <circle class="reach" r="3.4"/>
        <circle class="halo" r="2.2"/>
        <use href="#football"/>
      </g>
    </svg>
  </div>`,
  // ball: its spot, without which nothing can be moved; lines: contours; tee: of a conversion, the line of its try and
  // the zone of the tee; label: what the picture shows. Marks of the owner come into the slot `marks`.
  props: { label: String, ball: Object, distance: Number, spoken: String, map: Object, colours: Array, lines: Array, tee: Object, stale: Boolean, t: Function },
  emits: ["place", "drop", "try"],
  data: () => ({ boot, dragging: "" }),
  computed: {
    viewBox: () => `${LEFT} ${TOP} ${ACROSS} ${DOWN}`,
    canvasStyle() {
      // A spot is the middle of a pixel: the picture reaches half a pixel beyond the lines, where it is cut.
      const pixel = this.map?.step ?? 0;
      const [width, height] = [WIDTH + pixel, DEPTH + pixel];
      return {
        left: percent(-pixel / 2 - LEFT, ACROSS),
        top: percent(-pixel / 2 - TOP, DOWN),
        width: percent(width, ACROSS),
        height: percent(height, DOWN),
        clipPath: `inset(${percent(pixel / 2, height)} ${percent(pixel / 2, width)})`,
      };
    },
    shown() {
      return { x: clamp(this.ball.x, 0, WIDTH), out: clamp(this.ball.out, 0, DEPTH) };
    },
    opening() {
      return `M${WIDTH / 2 - POSTS / 2} 0L${this.shown.x} ${this.shown.out}L${WIDTH / 2 + POSTS / 2} 0Z`;
    },
  },
  mounted() {
    this.$watch("map", (map) => map && draw(this.$refs.canvas, map, this.colours), { immediate: true });
  },
  methods: {
    press(event) {
      if (event.button !== 0 || !this.ball) return;
      const held = this.$refs.try?.contains(event.target) ? "try" : "ball";
      // A finger drags only from the ball or the try itself, so that the page can still be scrolled elsewhere.
      if (event.pointerType === "touch" && held === "ball" && !this.$refs.ball.contains(event.target)) {
        this.tapped = [event.clientX, event.clientY];
        return;
      }
      this.dragging = held === "try" || (this.tee && this.spotOf(event).out < 0) ? "try" : "ball";
      this.$refs.svg.setPointerCapture(event.pointerId);
      this.follow(event, this.dragging);
    },
    drag(event) {
      if (this.dragging) this.follow(event, this.dragging);
    },
    release(event) {
      let moved = this.dragging;
      if (this.tapped) {
        const [x, y] = this.tapped;
        this.tapped = null;
        if (Math.hypot(event.clientX - x, event.clientY - y) > TAP) return;
        moved = this.tee && this.spotOf(event).out < 0 ? "try" : "ball";
        this.follow(event, moved);
      }
      if (!moved) return;
      this.dragging = "";
      this.$refs[moved]?.focus({ preventScroll: true });
      this.$emit("drop");
    },
    cancel() {
      if (this.dragging) this.$emit("drop");
      [this.dragging, this.tapped] = ["", null];
    },
    spotOf(event) {
      const box = this.$refs.svg.getBoundingClientRect();
      return {
        x: LEFT + ((event.clientX - box.left) / box.width) * ACROSS,
        out: TOP + ((event.clientY - box.top) / box.height) * DOWN,
      };
    },
    follow(event, what) {
      const { x, out } = this.spotOf(event);
      if (what === "try") this.$emit("try", clamp(x, 0, WIDTH));
      else this.$emit("place", { x: clamp(x, 0, WIDTH), out: clamp(out, 0, DEPTH) });
    },
    nudge(event) {
      const step = event.shiftKey ? 5 : 1;
      const [x, out] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
      if (x === undefined) return;
      event.preventDefault();
      this.$emit("place", { x: clamp(this.ball.x + x * step, 0, WIDTH), out: clamp(this.ball.out + out * step, 0, DEPTH) });
      this.$emit("drop");
    },
    nudgeTry(event) {
      const x = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (x === undefined) return;
      event.preventDefault();
      this.$emit("try", clamp(this.tee.line + x * (event.shiftKey ? 5 : 1), 0, WIDTH));
      this.$emit("drop");
    },
  },
};
