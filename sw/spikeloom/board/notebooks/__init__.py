"""Notebooks for a board; `pynq get-notebooks spikeloom` copies them beside one's own."""
