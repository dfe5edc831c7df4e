// The place of a module in a page of NiceGUI: the module mounts components of its own there, which need no connection.

export default {
  template: `<div id="content"><div id="board" :class="classes"></div></div>`,
  props: { module: String, classes: String },
  mounted() {
    import(this.module);
  },
};
