"""Artifacts: what leaves a bundle as files, and what comes in as one.

export.py         bundle -> files, each judged before it is put in place (gates.py, on what yardstick.py says), and noted
                  (manifest.py)
import_model.py   a network made elsewhere -> bundle; import_input.py finds what it does to its input
"""
