"""The shapes of the field's own software: archive-core's documents, rows and tables in each form that they have had."""
