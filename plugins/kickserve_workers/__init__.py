"""The plugin `workers`: several processes serve one port."""
