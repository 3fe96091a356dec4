"""The hivecomb: durable state behind one Protocol, on SQLite or in memory."""
