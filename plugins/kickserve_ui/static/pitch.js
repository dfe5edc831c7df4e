// The pitch: a heat map on a canvas, and above it, to scale in metres, the lines, the contours and the ball.
// It moves the ball at once and sends its spot to the server; all numbers come from the server.

const [LEFT, TOP, ACROSS, DOWN] = [-2, -10.5, 74, 73.5]; // the part that is shown, in metres
const [WIDTH, DEPTH, POSTS] = [70, 62, 5.6];
const SEND_EVERY = 40; // milliseconds while the ball is dragged
const REST = 450; // milliseconds after the last key until the place counts as chosen

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const percent = (part, whole) => `${(100 * part) / whole}%`;

function coloursOf(stops) {
  const parsed = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  return Array.from({ length: 128 }, (_, level) => {
    const place = (level / 127) * (parsed.length - 1);
    const at = Math.min(Math.floor(place), parsed.length - 2);
    return parsed[at].map((low, channel) => low + (parsed[at + 1][channel] - low) * (place - at));
  });
}

export default {
  template: `
  <div class="pitch" :class="{dragging}">
    <canvas ref="canvas" :style="canvasStyle" aria-hidden="true"></canvas>
    <svg ref="svg" :viewBox="viewBox" role="group" :aria-label="words.pitch" @pointerdown="press"
         @pointermove="drag" @pointerup="release" @pointercancel="cancel">
      <defs>
        <radialGradient id="leather" cx="38%" cy="32%" r="75%">
          <stop offset="0" stop-color="#ffffff"/><stop offset="1" stop-color="#e9dcc4"/>
        </radialGradient>
        <clipPath id="field"><rect x="0" y="0" width="70" height="62"/></clipPath>
      </defs>
      <rect class="in-goal" x="0" y="-10" width="70" height="10"/>
      <g class="contours" clip-path="url(#field)">
        <template v-for="each in contours" :key="each.name">
          <path :d="each.path" class="casing"/>
          <path :d="each.path" :class="each.name"/>
        </template>
      </g>
      <g class="lines">
        <path d="M0 62V-10M70 62V-10"/>
        <path class="goal" d="M0 0H70"/>
        <path d="M0 22H70M0 50H70"/>
        <path class="dashed" d="M0 40H70M0 60H70"/>
        <path class="dashes" d="M5 3v4M15 3v4M55 3v4M65 3v4M5 20v4M15 20v4M55 20v4M65 20v4
          M5 38v4M15 38v4M55 38v4M65 38v4M5 48v4M15 48v4M55 48v4M65 48v4
          M3 5h4M13 5h4M26.5 5h3M40.5 5h3M53 5h4M63 5h4"/>
      </g>
      <g class="names" aria-hidden="true">
        <text x="69.2" y="21.3">22</text><text x="69.2" y="39.3">10</text>
        <text x="69.2" y="49.3">{{ words.halfway }}</text>
      </g>
      <g class="posts"><path d="M32.2 0V-10M37.8 0V-10M32.2 -3H37.8"/></g>
      <g class="labels" aria-hidden="true">
        <template v-for="each in contours" :key="each.name">
          <text v-if="each.label" :x="each.label[0]" :y="each.label[1]" dy="0.6" :class="each.name">{{ each.text }}</text>
        </template>
      </g>
      <path class="opening" :d="opening"/>
      <g v-if="tee" class="tee">
        <path :d="'M' + ball.x + ' 2V62'"/>
        <circle :cx="tee.x" :cy="tee.out" r="1.5"/>
        <text :x="tee.x + (tee.x > 50 ? -2.4 : 2.4)" :y="tee.out + 0.6"
              :text-anchor="tee.x > 50 ? 'end' : 'start'">{{ tee.text }}</text>
      </g>
      <g ref="ball" class="ball" :transform="'translate(' + ball.x + ' ' + ball.out + ')'" tabindex="0"
         role="slider" aria-valuemin="2" aria-valuemax="100" :aria-valuenow="ball.distance"
         :aria-valuetext="ball.text" :aria-label="words.ball" aria-orientation="vertical" @keydown="nudge">
        <circle class="reach" r="3.4"/>
        <circle class="halo" r="2.2"/>
        <g transform="rotate(-28)">
          <ellipse class="leather" rx="1.05" ry="1.5"/>
          <path class="seam" d="M0 -1.5Q0.42 0 0 1.5M-0.3 -0.5H0.5M-0.3 0H0.55M-0.3 0.5H0.5"/>
        </g>
      </g>
    </svg>
  </div>`,
  props: { start: Object, stops: Array, words: Object },
  data() {
    return { ball: this.start.ball, contours: this.start.contours, tee: this.start.tee, dragging: false };
  },
  computed: {
    viewBox: () => `${LEFT} ${TOP} ${ACROSS} ${DOWN}`,
    canvasStyle: () => ({
      // A spot is the middle of a pixel: the picture reaches half a pixel beyond the lines.
      left: percent(-0.25 - LEFT, ACROSS),
      top: percent(-0.25 - TOP, DOWN),
      width: percent(WIDTH + 0.5, ACROSS),
      height: percent(DEPTH + 0.5, DOWN),
    }),
    opening() {
      return `M${WIDTH / 2 - POSTS / 2} 0L${this.ball.x} ${this.ball.out}L${WIDTH / 2 + POSTS / 2} 0Z`;
    },
  },
  mounted() {
    this.colours = coloursOf(this.stops);
    this.draw(this.start.heat);
  },
  methods: {
    // Methods that the server calls.
    place(ball, tee) {
      [this.ball, this.tee] = [ball, tee];
    },
    paint(heat, contours) {
      if (heat) this.draw(heat);
      this.contours = contours;
    },

    draw(heat) {
      const canvas = this.$refs.canvas;
      [canvas.width, canvas.height] = [heat.columns, heat.rows];
      const context = canvas.getContext("2d");
      const image = context.createImageData(heat.columns, heat.rows);
      const levels = atob(heat.bytes);
      for (let at = 0; at < levels.length; at++) {
        const level = levels.charCodeAt(at);
        const [red, green, blue] = this.colours[level >> 1];
        image.data.set([red, green, blue, level & 1 ? 120 : 255], 4 * at);
      }
      context.putImageData(image, 0, 0);
    },

    // Events of pointer and keyboard.
    press(event) {
      if (event.button !== 0) return;
      // A finger drags only from the ball itself, so that the page can still be scrolled elsewhere.
      if (event.pointerType === "touch" && !this.$refs.ball.contains(event.target)) {
        this.tapped = [event.clientX, event.clientY];
        return;
      }
      this.dragging = true;
      this.$refs.svg.setPointerCapture(event.pointerId);
      this.follow(event);
    },
    drag(event) {
      if (!this.dragging) return;
      this.follow(event);
      const now = performance.now();
      if (now - (this.sent ?? 0) >= SEND_EVERY) {
        this.sent = now;
        this.$emit("move", this.spot);
      }
    },
    release(event) {
      if (this.tapped) {
        const [x, y] = this.tapped;
        this.tapped = null;
        if (Math.hypot(event.clientX - x, event.clientY - y) > 10) return;
        this.follow(event);
      } else if (!this.dragging) return;
      this.dragging = false;
      this.$refs.ball.focus({ preventScroll: true });
      this.$emit("drop", this.spot);
    },
    cancel() {
      if (this.dragging) this.$emit("drop", this.spot);
      [this.dragging, this.tapped] = [false, null];
    },
    follow(event) {
      const box = this.$refs.svg.getBoundingClientRect();
      this.move(
        LEFT + ((event.clientX - box.left) / box.width) * ACROSS,
        TOP + ((event.clientY - box.top) / box.height) * DOWN,
      );
    },
    move(x, out) {
      this.spot = { x: clamp(x, 0, WIDTH), out: clamp(out, 0, DEPTH) };
      this.ball = { ...this.ball, ...this.spot };
    },
    nudge(event) {
      const step = event.shiftKey ? 5 : 1;
      const [x, out] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
      if (x === undefined) return;
      event.preventDefault();
      this.move(this.ball.x + x * step, this.ball.out + out * step);
      this.$emit("move", this.spot);
      clearTimeout(this.resting);
      this.resting = setTimeout(() => this.$emit("drop", this.spot), REST);
    },
  },
};
