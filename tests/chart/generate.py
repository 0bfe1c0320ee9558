"""`python -m tests.chart.generate` writes what is made of the chart: schema, table of values, and plain manifests."""

from tests.chart import plain, readme, schema

if __name__ == "__main__":
    for module in (schema, readme, plain):
        module.FILE.write_text(module.make())
