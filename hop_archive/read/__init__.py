"""From store and catalog to people and programs: documents, exports, and where the archive stands."""
