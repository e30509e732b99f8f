"""Layouts of a shard set: what a sample of a clip holds. A light module, which the command line imports."""

VIEWS = "views"  # one finished image for each view of a clip; the default
STRIP = "strip"  # one image of all frames of a clip, from which readers cut its views
LAYOUTS = (VIEWS, STRIP)
