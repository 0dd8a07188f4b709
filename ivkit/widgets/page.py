"""What a canvas needs in the page itself, through anywidget; without it the canvas works too."""

from pathlib import Path

import ipywidgets as w
import traitlets as t

try:
    from anywidget import AnyWidget as _Base
except ImportError:  # then keys and wheel stay with ipycanvas, and a dense screen shows it softly
    _Base = w.VBox


class Page(_Base):
    """Lies over a canvas, in the same box, and mends its manners: see page.js.

    label: what the canvas is called for who cannot see it. takes: the keys that are its own; all
    others are the page's. brush: width of the brush as a share of the canvas' width, 0 for none.
    density, zoom: what the page says of itself; 1 where nothing speaks. beats: whether it says
    {"event": "alive"} every two seconds.
    Messages: {"event": "key", "key", "shift", "command"} and {"event": "double", "x", "y"},
    {"event": "file", "name"} with the file as its buffer.
    """

    _esm = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    _css = """
.ivkit-stage { position: relative; overflow: hidden; }
.ivkit-stage:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); }
.ivkit-page { position: absolute; inset: 0; margin: 0; overflow: hidden; pointer-events: none; }
.ivkit-page > div { display: none; position: absolute; box-sizing: border-box; border-radius: 50%;
  border: 1px solid #fff; outline: 1px solid #000; }
[data-jp-theme-light=false] .widget-dropdown > select { background-position: right 6px center;
  background-image: conic-gradient(from -45deg at 50% 100%, #ccc 90deg, transparent 0);
  background-size: 10px 5px; }
"""
    label = t.Unicode().tag(sync=True)
    takes = t.List(t.Unicode()).tag(sync=True)
    brush = t.Float(0.0).tag(sync=True)
    density = t.Float(1.0).tag(sync=True)
    zoom = t.Float(1.0).tag(sync=True)
    beats = t.Bool(False).tag(sync=True)

    def __init__(self, **options):
        super().__init__(**options)
        self.add_class("ivkit-page")
