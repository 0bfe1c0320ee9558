"""The operator: ValidatorRules of Kubernetes become the ruleset that workers mount, and their status says so."""
