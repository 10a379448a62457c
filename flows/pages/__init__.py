"""EDI's own web pages as text: of one session, of all photos and edits, and the forms on them (see flows/viewer.py)."""
