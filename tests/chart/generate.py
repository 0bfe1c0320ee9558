"""`python -m tests.chart.generate` writes what is made of the chart: schema, table of values, manifests, rules."""

from tests.chart import plain, prometheus_rules, readme, schema

if __name__ == "__main__":
    for module in (schema, readme, plain):
        module.FILE.write_text(module.make())
    for file, text in prometheus_rules.make():
        file.write_text(text)
