"""TOML recipes, small to large; `colophon run NAME` runs the one called NAME."""
