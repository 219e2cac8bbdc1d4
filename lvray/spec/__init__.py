"""Floor 1: what may be asked. The YAML door: yaml is spoken here alone, pydantic here and in `launcher`.

- `schema`    a sweep file, field by field, with units and ranges
- `fields`    the kinds of values that these fields hold, read and written back
- `tree`      YAML 1.2 text as values that know where they stand
- `files`     a YAML file read, and its mistakes told in the order of its lines
- `mistakes`  what is wrong, where, and what would have been right
- `rules`     what no single field can tell: rules across fields
- `load`      a file and its overrides to a `Sweep`, every mistake at once; and back to text
- `space`     a grid of overrides, and the config of each trial
"""
