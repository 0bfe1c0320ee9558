"""The pages where people see events: server-rendered, with htmx for what changes in place."""
