"""Who may append what: one judge for every database, over facts that the database supplies."""
