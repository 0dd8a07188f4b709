"""What a person draws, drags and watches with: canvas, drags, trace explorer, studio.

Runs on ipywidgets 7.7 and 8, so: no Accordion, no Tab, and no name that only one of them has.
"""
