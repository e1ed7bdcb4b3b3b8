"""Whether the archive is as its catalog says. Changes nothing but findings."""
