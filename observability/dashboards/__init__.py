"""The Grafana dashboards, as code: ``python -m observability.dashboards`` writes their JSON."""
