"""`python -m tests.chart.generate` writes what is made of values.yaml: the schema, and the table in the README."""

from tests.chart import readme, schema

if __name__ == "__main__":
    schema.FILE.write_text(schema.make())
    readme.FILE.write_text(readme.make())
