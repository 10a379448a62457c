"""The revisions, oldest first. A released one never changes: databases out there were made by it."""
