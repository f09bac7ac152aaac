"""Reports: pictures through cwic, JPEG and WebP at equal bytes, as one HTML page.

::

    build ─▶ measure ─▶ classical, metrics, spending     figures and pixels of one picture
          └▶ view ─▶ embed, chart                        what the page shows of them
          └▶ render ─▶ page/*.j2, *.css, *.js            the page

Needs the extra ``report``; nothing of the codec imports this package.
"""
