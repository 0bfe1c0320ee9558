"""The store: everything that speaks SQL to PostgreSQL."""
