"""Instruments: which component runs, which storages live, how long each part takes."""
