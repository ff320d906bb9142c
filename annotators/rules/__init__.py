"""Rules of other pipelines through datatrove's filters: the common part of `gopher`, `c4` and `fineweb`."""
