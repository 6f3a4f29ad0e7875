"""The work of a replica as plain classes: batch in, batch out; no Ray and no HTTP in here."""
